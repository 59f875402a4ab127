"""New flows at the speed of the kernel: UDP packets, each from a port of its own, sent from a ring that the kernel
empties by itself (packet_mmap, Documentation/networking/packet_mmap.rst).

A sender in Python costs more for each packet than the path that is measured; from a ring a packet costs the sender a
fraction of a microsecond.
"""

from __future__ import annotations

import mmap
import socket
import struct
import time
from collections.abc import Iterator
from ipaddress import IPv4Address

from outgate.lab.namespace import Namespace

PORT = 9  # discard
PACKETS = 12_000  # flows of one measurement, and frames of the ring
_FRAME = 256  # bytes of a frame; the packet itself has 60
_AT = 32  # where a frame's packet begins: behind struct tpacket_hdr, aligned
_AT_ONCE = 200  # packets handed over by one call: fewer than net.core.netdev_max_backlog, or the kernel loses some
_SOL_PACKET, _PACKET_TX_RING = 263, 13  # linux/if_packet.h
_SEND_REQUEST = 1  # TP_STATUS_SEND_REQUEST
_FIRST_PORT = 1024

_COUNTED = """
table netdev bench {{
  counter arrived {{ }}
  chain in {{
    type filter hook ingress device "{link}" priority 0; policy accept;
    ip saddr {source} udp dport {port} counter name arrived drop
  }}
}}
"""


def count_and_drop(outside: Namespace, link: str, source: IPv4Address) -> None:
    """Count what arrives from a source at our port, and drop it: nobody shall answer."""
    outside.run(("nft", "-f", "-"), input=_COUNTED.format(link=link, source=source, port=PORT))


def arrived(outside: Namespace) -> int:
    """Return how many packets were counted since the last call."""
    listed = outside.run(("nft", "reset", "counter", "netdev", "bench", "arrived")).stdout
    return int(listed.split("packets")[1].split()[0])


def seconds_of_new_flows(node: Namespace, link: str, mac: str, source: IPv4Address) -> float:
    """Send one packet for each of many new flows from a worker to a gateway's MAC; return the seconds until all passed.

    What a packet meets on the way (veth, bridge, gateway) runs within the call that sends it.
    """
    with node.inside(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind((link, 0x0800))
        size = PACKETS * _FRAME
        blocks = struct.pack("=IIII", mmap.PAGESIZE, size // mmap.PAGESIZE, _FRAME, PACKETS)
        sender.setsockopt(_SOL_PACKET, _PACKET_TX_RING, blocks)
        with mmap.mmap(sender.fileno(), size) as ring:
            for number, packet in enumerate(_packets(mac, source)):
                at = number * _FRAME
                struct.pack_into("@LII", ring, at, 0, len(packet), len(packet))
                ring[at + _AT : at + _AT + len(packet)] = packet
            began = time.perf_counter()
            for first in range(0, PACKETS, _AT_ONCE):
                for number in range(first, min(first + _AT_ONCE, PACKETS)):
                    struct.pack_into("@L", ring, number * _FRAME, _SEND_REQUEST)
                sender.send(b"")
            return time.perf_counter() - began


def _packets(mac: str, source: IPv4Address) -> Iterator[bytes]:
    """Yield one UDP packet for each flow; without a checksum, which IPv4 allows."""
    macs = bytes.fromhex(mac.replace(":", "")) + b"\x02\x00\x00\x00\x00\x09"
    target = IPv4Address("203.0.113.9").packed
    for number in range(PACKETS):
        port = _FIRST_PORT + number
        udp = struct.pack("!HHHH", port, PORT, 26, 0) + bytes(18)
        head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, source.packed, target)
        total = sum(struct.unpack("!10H", head))
        total = (total & 0xFFFF) + (total >> 16)
        checksum = ~(total + (total >> 16)) & 0xFFFF
        yield macs + b"\x08\x00" + head[:10] + struct.pack("!H", checksum) + head[12:] + udp
