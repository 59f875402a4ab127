"""What the world outside sees: a counter of sources, the only oracle about leaks, and a server that says who asked.

The counter is a table of the netdev family on one link: it sees every packet that arrives there before routing,
filters and sockets do, also packets that nobody wants. Neighbour discovery, multicast listener reports and ARP are not
counted. Packets are counted as the kernel hands them on: a segmented send may arrive as one.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from outgate.lab.addresses import CLUSTER, Address, Prefix
from outgate.lab.namespace import Namespace, python_module, stop

_TABLE = "outgate_lab_"  # and the link
_NEIGHBOUR_TALK = "130-132, 133-137, 143"  # ICMPv6 types: MLD (RFC 2710, RFC 3810) and neighbour discovery (RFC 4861)
_SIZE = 262144  # source addresses of each family; more than that is an error, not a silence
_RULES = """
table netdev {table} {{
  set sources4 {{ type ipv4_addr; size {size}; flags dynamic; counter; }}
  set sources6 {{ type ipv6_addr; size {size}; flags dynamic; counter; }}
  set ports4 {{ type ipv4_addr . inet_service; size {size}; flags dynamic; counter; }}
  set ports6 {{ type ipv6_addr . inet_service; size {size}; flags dynamic; counter; }}
  counter overflow {{ }}
  chain arrived {{
    type filter hook ingress device "{link}" priority -500; policy accept;
    meta protocol ip goto arrived4
    meta protocol ip6 goto arrived6
  }}
  chain arrived4 {{
    update @sources4 {{ ip saddr }} goto ported4
    counter name overflow
  }}
  chain ported4 {{
    ip protocol {{ tcp, udp }} update @ports4 {{ ip saddr . th dport }}
  }}
  chain arrived6 {{
    icmpv6 type {{ {neighbour_talk} }} accept
    update @sources6 {{ ip6 saddr }} goto ported6
    counter name overflow
  }}
  chain ported6 {{
    meta l4proto {{ tcp, udp }} update @ports6 {{ ip6 saddr . th dport }}
  }}
}}
"""


class SourceCounter:
    """Counts what arrives on one link of a namespace, by source address. It lives and dies with the namespace."""

    def __init__(self, net: Namespace, link: str) -> None:
        """Start counting, from nothing."""
        self._net = net
        self._table = _TABLE + link
        net.run(
            ("nft", "-f", "-"),
            input=_RULES.format(table=self._table, link=link, size=_SIZE, neighbour_talk=_NEIGHBOUR_TALK),
        )

    def seen(self) -> dict[Address, int]:
        """Return how many packets came from each source address since the last `reset`."""
        return {ip_address(value): packets for value, packets in self._elements("sources4", "sources6")}

    def seen_at(self, port: int) -> dict[Address, int]:
        """Return the same of TCP and UDP packets to one destination port, which can tell whose traffic it was."""
        elements = self._elements("ports4", "ports6")
        return {ip_address(value["concat"][0]): packets for value, packets in elements if value["concat"][1] == port}

    def seen_by_port(self) -> dict[tuple[Address, int], int]:
        """Return the same of every destination port, by source address and port, from one listing."""
        elements = self._elements("ports4", "ports6")
        return {(ip_address(value["concat"][0]), value["concat"][1]): packets for value, packets in elements}

    def leaked(self, prefixes: Iterable[Prefix] = CLUSTER) -> int:
        """Return how many packets came from within the prefixes: by default, with the address of a pod."""
        inside = tuple(prefixes)
        return sum(packets for source, packets in self.seen().items() if any(source in prefix for prefix in inside))

    def reset(self) -> None:
        """Forget what was seen."""
        self._net.run(
            ("nft", "-f", "-"),
            input="".join(
                f"flush set netdev {self._table} {name}\n" for name in ("sources4", "sources6", "ports4", "ports6")
            ),
        )

    def _elements(self, *names: str) -> list[tuple[Any, int]]:
        """Return value and packets of each element of the named sets, from one listing.

        Raises:
            OverflowError: more sources than the sets can hold: what was counted is not all there was.
        """
        listing = json.loads(self._net.run(("nft", "-j", "list", "table", "netdev", self._table)).stdout)["nftables"]
        if any(item["counter"]["packets"] for item in listing if "counter" in item):
            raise OverflowError(f"more than {_SIZE} sources on a link of {self._net.name}")
        sets = [item["set"] for item in listing if item.get("set", {}).get("name") in names]
        return [
            (entry["elem"]["val"], entry["elem"]["counter"]["packets"]) for one in sets for entry in one.get("elem", ())
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One request that the web server answered: whom it saw, on which port, for what."""

    source: Address
    port: int
    path: str


class Server:
    """A server process in a namespace (`outgate.lab.server`): web pages, UDP and TCP echo; all say the source seen."""

    def __init__(self, net: Namespace, *options: str) -> None:
        """Start it; `options` are those of `outgate.lab.server`. It ends with this process at the latest."""
        self._net = net
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`; it has no name that could remain
        self._child = net.popen(
            python_module("outgate.lab.server", "--until-eof", *options),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            tied=False,
        )
        self._ready = False

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    def wait_until_ready(self) -> None:
        """Return once it listens.

        Raises:
            RuntimeError: it ended instead; its last words are in the message.
        """
        if self._ready:
            return
        assert self._child.stdout is not None
        self._ready = self._child.stdout.readline().startswith("ready ")
        if not self._ready:
            raise RuntimeError(f"the server in {self._net.name} did not start: {self._written().strip()}")

    def visits(self) -> tuple[Visit, ...]:
        """Return the requests for pages that were answered so far, oldest first."""
        records = [json.loads(line) for line in self._written().splitlines()]
        return tuple(
            Visit(source=ip_address(record["source"]), port=record["port"], path=record["path"]) for record in records
        )

    def close(self) -> None:
        """End the process."""
        stop(self._child)
        self._log.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _written(self) -> str:
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode()
