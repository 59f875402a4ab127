"""Our look-up of routes against the kernel's own, `ip route get`, for random tables and rules.

A host with two NICs, br-ex 192.168.99.21 and eth1 192.168.55.21 (fd99::21, fd55::21); packets of pod 10.128.0.5
(fd01:0:0:1::5) come by ovn-k8s-mp0.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outgate.lab.batch import configure
from outgate.lab.namespace import Namespace
from outgate.lab.ovn.addresses import Address, Prefix
from outgate.model.net import Discard, LinkName, OnLink, Via
from outgate.plan.fib import Fib, Found
from outgate.systems.kernel.tables import read_tables

PODS = {4: ip_address("10.128.0.5"), 6: ip_address("fd01:0:0:1::5")}
HOPS = {4: ("192.168.99.1", "192.168.99.2", "192.168.55.1"), 6: ("fd99::1", "fd99::2", "fd55::1")}
MANAGEMENT = LinkName("ovn-k8s-mp0")
ROUTED: dict[int, Prefix] = {4: IPv4Network("203.0.0.0/12"), 6: IPv6Network("2001:db8::/32")}

WORDS = {  # of errno(3), as the kernel answers for routes that discard, and for none
    "Invalid argument": "blackhole",
    "No route to host": "unreachable",
    "Network is unreachable": "unreachable",
    "Permission denied": "prohibit",
}
_LINES = [
    "link set lo up",
    *(
        line
        for link, v4, v6 in (
            ("br-ex", "192.168.99.21/24", "fd99::21/64"),
            ("eth1", "192.168.55.21/24", "fd55::21/64"),
            ("ovn-k8s-mp0", "10.128.0.2/24", "fd01:0:0:1::2/64"),
        )
        for line in (
            f"link add {link} type veth peer name {link}-far",
            f"link set {link}-far up",
            f"addr add {v4} dev {link}",
            f"addr add {v6} dev {link} nodad",
            f"link set {link} up",
        )
    ),
    "route add default via 192.168.99.1 dev br-ex",
    "route add default via fd99::1 dev br-ex",
]


@pytest.fixture(scope="module")
def host() -> Iterator[Namespace]:
    with Namespace("host") as net:
        for path in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            net.sysctl(f"net/{path}", 1)
        for link in ("all", "default"):
            net.sysctl(f"net/ipv4/conf/{link}/rp_filter", 0)
        configure({net: _LINES})
        yield net


@st.composite
def prefixes(draw: st.DrawFn, version: int) -> Prefix:
    around = ROUTED[version]
    length = draw(st.integers(around.prefixlen, around.max_prefixlen))
    number = int(around.network_address) + draw(st.integers(0, around.num_addresses - 1))
    kind = IPv4Network if version == 4 else IPv6Network
    return kind((number, length), strict=False)


@st.composite
def lines(draw: st.DrawFn, version: int) -> list[str]:
    """Routes of the main table and of table 77, and perhaps a rule that leads pods there."""
    found = []
    for number in range(draw(st.integers(1, 12))):
        prefix = draw(prefixes(version))
        hop = draw(st.sampled_from([*HOPS[version], "blackhole", "unreachable", "prohibit", "throw", "two"]))
        table = draw(st.sampled_from([254, 254, 77]))
        tail = f"metric {100 + number} table {table}"
        if hop == "two":
            first, second = HOPS[version][0], HOPS[version][2]
            found.append(f"route add {prefix} {tail} nexthop via {first} dev br-ex nexthop via {second} dev eth1")
        elif hop in {"blackhole", "unreachable", "prohibit", "throw"}:
            found.append(f"route add {hop} {prefix} {tail}")
        else:
            found.append(f"route add {prefix} via {hop} dev {'eth1' if '55' in hop else 'br-ex'} {tail}")
    if draw(st.booleans()):
        flag = "-6 " if version == 6 else ""
        found.append(f"{flag}rule add priority 100 from {PODS[version]} lookup 77")
    return found


def kernels_answer(net: Namespace, destination: Address) -> str:
    """What `ip route get` says of the pod's packet: a link and router, or the word for a discard."""
    source = PODS[destination.version]
    argv = ("ip", "-j", "route", "get", str(destination), "from", str(source), "iif", MANAGEMENT)
    done = net.run(argv, check=False)
    if done.returncode:
        return WORDS.get(done.stderr.strip().rpartition(": ")[2], done.stderr)
    (found,) = json.loads(done.stdout)
    if found.get("type") in ("blackhole", "unreachable", "prohibit"):
        return str(found["type"])
    return f"{found['dev']} {found.get('gateway', 'on link')}"


def ours(found: Found) -> set[str]:
    """The same of a look-up, one for each leg."""
    if not found.legs:
        return {"unreachable"}
    return {_word(leg.hop) for leg in found.legs}


def _word(hop: Via | OnLink | Discard) -> str:
    match hop:
        case Via(address=address, link=link):
            return f"{link} {address}"
        case OnLink(link=link):
            return f"{link} on link"
        case Discard():
            return hop.value


def around(net: Namespace, version: int) -> list[Address]:
    """Addresses at the edges of all routed prefixes, where a look-up can go wrong."""
    with net.inside():
        tables = read_tables()
    routed, kind = ROUTED[version], IPv4Address if version == 4 else IPv6Address
    lowest, highest = int(routed.network_address), int(routed.broadcast_address)
    edges = {lowest}
    for route in tables.routes:
        if route.dst.version == version:
            first, last = int(route.dst.network_address), int(route.dst.broadcast_address)
            edges |= {one for one in (first - 1, first, last, last + 1) if lowest <= one <= highest}
    return [kind(one) for one in sorted(edges)[:24]]


@pytest.mark.parametrize("version", [4, 6])
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_look_up_is_the_kernels(host: Namespace, version: int, data: st.DataObject) -> None:
    script = data.draw(lines(version))
    loaded = _load(host, script)
    try:
        with host.inside():
            fib = Fib(read_tables())
        for destination in around(host, version):
            found = fib.find(PODS[version], destination, incoming=MANAGEMENT)
            answer = kernels_answer(host, destination)
            assert answer in ours(found), (destination, script, found)
    finally:
        _unload(host, loaded)


def _load(net: Namespace, script: Sequence[str]) -> list[str]:
    """Load lines one at a time, because of two that are one to the kernel it refuses the later; return the loaded."""
    return [line for line in script if net.run(_argv(line), check=False).returncode == 0]


def _unload(net: Namespace, loaded: Sequence[str]) -> None:
    for line in loaded:
        net.run(_argv(line.replace(" add ", " del ", 1)))


def _argv(line: str) -> tuple[str, ...]:
    family = ("-6",) if line.startswith("-6 ") or ":" in line else ()
    return ("ip", *family, *line.removeprefix("-6 ").split())
