"""A namespace that tracks its flows: pods 10.128.0.5 and fd01::5 talk to 203.0.113.10 and 2001:db8:113::10.

All addresses are on loopback. The firewall saves the packet's mark in the flow, puts port 53 into a zone of its own,
and gives pod 10.128.0.6 the egress IP 192.168.55.113. The program `conntrack` reads the same table and is the oracle.
"""

from __future__ import annotations

import socket
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from outgate.lab.namespace import Namespace
from outgate.model.flow import ASSURED, SEEN_REPLY, SRC_NAT, UDP, Flow, TcpState
from outgate.systems.conntrack import read, write

POD, OTHER_POD, POD6 = "10.128.0.5", "10.128.0.6", "fd01::5"
OUTSIDE, OUTSIDE6 = "203.0.113.10", "2001:db8:113::10"
EGRESS = "192.168.55.113"
RED, BLUE, FIELD = 0x500, 0x600, 0xFF00
SO_MARK = 36
FIREWALL = f"""
table inet traffic {{
  chain zones {{
    type filter hook output priority raw;
    udp dport 53 ct zone set 7
  }}
  chain marks {{
    type filter hook output priority mangle;
    ct state new ct mark set meta mark
  }}
  chain translation {{
    type nat hook postrouting priority srcnat;
    ip saddr {OTHER_POD} snat ip to {EGRESS}
  }}
}}
"""


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with Namespace("conntrack") as made:
        made.run(("ip", "link", "set", "lo", "up"))
        for address in (POD, OTHER_POD, OUTSIDE, EGRESS):
            made.run(("ip", "address", "add", f"{address}/32", "dev", "lo"))
        for address in (POD6, OUTSIDE6):
            made.run(("ip", "address", "add", f"{address}/128", "dev", "lo", "nodad"))
        made.run(("nft", "-f", "-"), input=FIREWALL)
        yield made


def send(namespace: Namespace, *, source: str = POD, port: int = 9, mark: int = 0, to: str = OUTSIDE) -> int:
    """Send a UDP packet that nobody answers, and return the port that it left from."""
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    with namespace.inside(), socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
        sender.bind((source, 0))
        sender.sendto(b"x", (to, port))
        return int(sender.getsockname()[1])


def connect(namespace: Namespace, *, source: str, to: str) -> tuple[socket.socket, ...]:
    """Open a TCP connection and return its sockets: as long as they are open, it is established."""
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    with namespace.inside():
        listener = socket.create_server((to, 0), family=family)
        client = socket.create_connection(listener.getsockname()[:2], timeout=5, source_address=(source, 0))
    return client, listener.accept()[0], listener


def flows(namespace: Namespace, **wanted: int) -> list[Flow]:
    with namespace.inside():
        return list(read.flows(**wanted))


def delete(namespace: Namespace, doomed: list[Flow]) -> int:
    with namespace.inside():
        return write.delete(doomed)


def as_listed(namespace: Namespace) -> dict[int, dict[str, list[str]]]:
    """The table as the `conntrack` program lists it: by id, the words `key=value` of both directions in order."""
    listed: dict[int, dict[str, list[str]]] = {}
    for line in namespace.run(("conntrack", "-L", "-o", "extended,id")).stdout.splitlines():
        family, _, protocol, number, timeout_s, *words = line.split()
        pairs: dict[str, list[str]] = {"number": [number], "timeout": [timeout_s], "bare": [family, protocol]}
        for word in words:
            key, found, value = word.partition("=")
            pairs.setdefault(key if found else "bare", []).append(value if found else word)
        listed[int(pairs["id"][-1])] = pairs
    return listed


def assert_same(flow: Flow, listed: dict[str, list[str]]) -> None:
    """Assert that each value of the flow is what the program printed."""
    sent, answered = flow.original, flow.reply
    assert [str(flow.protocol)] == listed["number"]
    assert [str(sent.src), str(answered.src)] == listed["src"]
    assert [str(sent.dst), str(answered.dst)] == listed["dst"]
    if flow.icmp is None:
        assert [str(sent.src_port), str(answered.src_port)] == listed["sport"]
        assert [str(sent.dst_port), str(answered.dst_port)] == listed["dport"]
    else:
        assert [str(flow.icmp >> 8), str(flow.icmp & 0xFF)] == [listed["type"][0], listed["code"][0]]
        assert {str(sent.src_port), str(sent.dst_port), str(answered.dst_port)} == {listed["id"][0]}
    assert abs(flow.timeout_s - int(listed["timeout"][0])) <= 5
    assert [str(flow.mark), str(flow.zone)] == [listed["mark"][0], listed.get("zone", ["0"])[0]]
    bare = set(listed["bare"])
    assert (flow.tcp_state.name if flow.tcp_state else None) == next(
        (w for w in bare if w in TcpState.__members__), None
    )
    assert ("[ASSURED]" in bare, "[UNREPLIED]" not in bare) == (
        bool(flow.status & ASSURED),
        bool(flow.status & SEEN_REPLY),
    )
    counted = [sum(map(int, listed[key])) if key in listed else None for key in ("packets", "bytes")]
    assert [flow.packets, flow.bytes] == counted


def test_a_namespace_that_tracks_nothing_has_no_flows() -> None:
    with Namespace("idle") as idle, idle.inside():
        assert list(read.flows()) == []
        assert read.tally() == {}
        assert read.count().entries == 0


@pytest.mark.parametrize("counted", [False, True], ids=["flows are not counted", "flows are counted"])
def test_every_flow_is_read_as_the_conntrack_program_lists_it(namespace: Namespace, counted: bool) -> None:
    namespace.sysctl("net/netfilter/nf_conntrack_acct", int(counted))
    send(namespace, mark=RED)
    send(namespace, port=53)
    send(namespace, source=OTHER_POD)
    send(namespace, source=POD6, to=OUTSIDE6)
    open_sockets = [
        *connect(namespace, source=POD, to=OUTSIDE),
        *connect(namespace, source=OTHER_POD, to=OUTSIDE),
        *connect(namespace, source=POD6, to=OUTSIDE6),
    ]
    for source, to in ((POD, OUTSIDE), (POD6, OUTSIDE6)):
        namespace.run(("ping", "-c1", "-q", "-I", source, to))

    found, listed = flows(namespace), as_listed(namespace)

    for each in open_sockets:
        each.close()
    assert {flow.id for flow in found} == set(listed)
    assert len(found) == len(listed) == 9
    for flow in found:
        assert_same(flow, listed[flow.id])


def test_the_source_that_the_outside_sees_is_the_destination_of_the_reply(namespace: Namespace) -> None:
    port = send(namespace, source=OTHER_POD)

    (flow,) = flows(namespace)

    assert flow.original.src == ip_address(OTHER_POD)
    assert flow.reply.dst == ip_address(EGRESS)
    assert flow.status & SRC_NAT
    assert str(flow) == f"udp {OTHER_POD}:{port} to {OUTSIDE}:9 as {EGRESS}:{flow.reply.dst_port}"


def test_the_kernel_picks_flows_by_mark_and_by_ip_version_and_stops_at_the_limit(namespace: Namespace) -> None:
    for mark in (RED, RED, RED | 1, BLUE, 0):
        send(namespace, mark=mark)
    send(namespace, source=POD6, to=OUTSIDE6, mark=RED)

    assert Counter(flow.mark for flow in flows(namespace)) == {RED: 3, RED | 1: 1, BLUE: 1, 0: 1}
    assert Counter(flow.mark for flow in flows(namespace, mark=RED, mask=FIELD)) == {RED: 3, RED | 1: 1}
    assert Counter(flow.mark for flow in flows(namespace, mark=RED)) == {RED: 3}
    assert [flow.version for flow in flows(namespace, version=6)] == [6]
    assert Counter(flow.version for flow in flows(namespace, mark=RED, mask=FIELD, version=4)) == {4: 3}
    assert len(flows(namespace, limit=2)) == 2


def test_the_tally_counts_each_address_that_the_outside_sees(namespace: Namespace) -> None:
    for source in (OTHER_POD, OTHER_POD, POD):
        send(namespace, source=source, mark=RED)
    send(namespace, source=POD6, to=OUTSIDE6)

    with namespace.inside():
        everything, marked = read.tally(), read.tally(mark=RED, mask=FIELD)

    translated = {(ip_address(EGRESS), UDP): 2, (ip_address(POD), UDP): 1}
    assert marked == translated
    assert everything == {**translated, (ip_address(POD6), UDP): 1}


def test_deleting_removes_exactly_the_flows_that_were_given(namespace: Namespace) -> None:
    for mark in (RED, BLUE):
        send(namespace, mark=mark)
        send(namespace, mark=mark, port=53)
        send(namespace, mark=mark, source=POD6, to=OUTSIDE6)
        for source, to in ((POD, OUTSIDE), (POD6, OUTSIDE6)):
            namespace.run(("ping", "-c1", "-q", "-m", str(mark), "-I", source, to))
    red, blue = flows(namespace, mark=RED, mask=FIELD), flows(namespace, mark=BLUE, mask=FIELD)
    assert (len(red), len(blue)) == (5, 5)

    assert delete(namespace, red) == 5

    assert {flow.id for flow in flows(namespace)} == set(as_listed(namespace)) == {flow.id for flow in blue}
    assert delete(namespace, red) == 0, "an entry that is gone already is fine"
    assert delete(namespace, [*red, *blue]) == 5
    assert as_listed(namespace) == {}


def test_deleting_an_entry_spares_a_later_one_with_the_same_tuples(namespace: Namespace) -> None:
    send(namespace)
    (flow,) = flows(namespace)

    assert delete(namespace, [replace(flow, id=flow.id ^ 1)]) == 0
    assert [left.id for left in flows(namespace)] == [flow.id]


def test_deleting_nothing_deletes_nothing(namespace: Namespace) -> None:
    send(namespace)

    assert delete(namespace, []) == 0
    assert len(flows(namespace)) == 1


def test_the_occupancy_is_what_the_kernel_settings_show(namespace: Namespace) -> None:
    for _ in range(3):
        send(namespace)

    with namespace.inside():
        occupancy = read.count()

    assert str(occupancy.entries) == namespace.sysctl("net/netfilter/nf_conntrack_count") == "3"
    assert str(occupancy.limit) == namespace.sysctl("net/netfilter/nf_conntrack_max")


@pytest.mark.parametrize("call", ["list(read.flows())", "read.tally()", "read.count()"])
def test_without_the_privilege_the_kernel_refuses_in_its_own_words(namespace: Namespace, call: str) -> None:
    script = f"from outgate.systems.conntrack import read\ntry: {call}\nexcept read.Refused as no: print(no.words)"
    source = Path(read.__file__).parents[3]
    without = ("setpriv", "--bounding-set=-net_admin", "env", f"PYTHONPATH={source}", sys.executable, "-c", script)

    assert namespace.run(without).stdout == "Operation not permitted\n"


def test_thousands_of_flows_are_read_and_deleted_whole(namespace: Namespace) -> None:
    restored = "".join(
        f"-A -p udp -s 10.128.{n >> 8}.{n & 255} -d {OUTSIDE} --sport 4000 --dport 80 -t 600 -m {RED | n & 1}\n"
        for n in range(5000)
    )
    namespace.run(("conntrack", "--load-file", "-"), input=restored)

    found = flows(namespace, mark=RED, mask=FIELD)

    assert len({flow.original.src for flow in found}) == 5000
    assert delete(namespace, [flow for flow in found if flow.mark == RED]) == 2500
    assert Counter(flow.mark for flow in flows(namespace)) == {RED | 1: 2500}
