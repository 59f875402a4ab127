"""The mirror of a secondary NIC's routes in the kernel: it forwards as the main table would if it had that NIC alone.

A host with br-ex 192.168.99.21 and eth1 192.168.55.21 (fd99::21, fd55::21); pod 10.128.0.5 (fd01:0:0:1::5) comes by
ovn-k8s-mp0, and its egress IP is on eth1. The oracle is a second host with the same routes whose br-ex is down: there
the kernel itself takes away all routes and next hops by br-ex.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outgate.lab.namespace import Namespace
from outgate.model.net import Address, Prefix
from outgate.systems.kernel.tables import read_tables
from tests.kernel.mirror import (
    ANY,
    DISCARDS,
    FAR,
    NEAR,
    OBJECTS,
    PARTNER,
    REMOTE,
    ROUTED,
    Mirror,
    Way,
    host,
    load,
    matched,
    mirroring,
    way,
)


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with host("host") as net, mirroring(net) as made:
        yield made


@st.composite
def prefixes(draw: st.DrawFn, version: int) -> Prefix:
    """All there is, or a prefix around one of two addresses: so prefixes lie in each other."""
    around = ROUTED[version]
    length = draw(st.sampled_from([0, *range(around.prefixlen, around.max_prefixlen + 1)]))
    if not length:
        return ANY[version]
    number = int(around.network_address) + draw(st.sampled_from([0, around.num_addresses // 2]))
    kind = IPv4Network if version == 4 else IPv6Network
    return kind((number, length), strict=False)


@st.composite
def legs(draw: st.DrawFn, version: int) -> str:
    """Two to four next hops, by either NIC or both, evenly or not."""
    hops = [
        f"via {REMOTE[version]} dev eth1 onlink",
        *(f"via {one} dev eth1" for one in NEAR[version]),
        *(f"via {one} dev br-ex" for one in FAR[version]),
    ]
    hops += ["dev eth1"] if version == 4 else []
    chosen = draw(st.lists(st.sampled_from(hops), min_size=2, max_size=4, unique=version == 6))
    return " ".join(f"nexthop {one} weight {draw(st.sampled_from([1, 1, 2, 20]))}" for one in chosen)


@st.composite
def lines(draw: st.DrawFn, version: int) -> list[str]:
    """Routes of the main table, and what comes in their way."""
    groups = (1, 2, 3, 4, 7, 9, 10) if version == 6 else (1, 2, 3, 4, 7, 8, 9, 10)
    found = list(OBJECTS[version])
    known = draw(st.lists(prefixes(version), min_size=1, max_size=4, unique=True))
    for _ in range(draw(st.integers(1, 16))):
        prefix, verb = draw(st.sampled_from(known)), draw(st.sampled_from(["add", "add", "append"]))
        tail = f"metric {draw(st.sampled_from([100, 200]))}"
        match draw(st.sampled_from(["near", "remote", "far", "link", "legs", "legs", "object", "discard"])):
            case "near":
                found.append(f"route {verb} {prefix} via {draw(st.sampled_from(NEAR[version]))} dev eth1 {tail}")
            case "remote":
                found.append(f"route {verb} {prefix} via {REMOTE[version]} dev eth1 onlink {tail}")
            case "far":
                found.append(f"route {verb} {prefix} via {draw(st.sampled_from(FAR[version]))} dev br-ex {tail}")
            case "link":
                found.append(f"route add {prefix} dev eth1 {tail}")
            case "legs":
                found.append(f"route {verb} {prefix} {tail} {draw(legs(version))}")
            case "object":
                found.append(f"route add {prefix} nhid {draw(st.sampled_from([*groups, 5]))} {tail}")
            case "discard":
                found.append(f"route add {draw(st.sampled_from(DISCARDS))} {prefix} {tail}")
    return found


def edges(net: Namespace, version: int) -> list[Address]:
    """Addresses at the edges of all routed prefixes, where a look-up can go wrong."""
    with net.inside():
        tables = read_tables()
    kind = IPv4Address if version == 4 else IPv6Address
    lowest, highest = int(ROUTED[version].network_address), int(ROUTED[version].broadcast_address)
    found = {lowest}
    for route in tables.routes:
        if route.dst.version == version:
            first, last = int(route.dst.network_address), int(route.dst.broadcast_address)
            found |= {one for one in (first - 1, first, last, last + 1) if lowest <= one <= highest}
    return [kind(one) for one in sorted(found)[:24]]


@pytest.mark.parametrize("version", [4, 6])
@settings(max_examples=15)
@given(data=st.data())
def test_a_mirror_forwards_as_the_main_table_would_without_other_links(version: int, data: st.DataObject) -> None:
    script = data.draw(lines(version))
    with host("host", script) as net, host("twin", script) as twin, mirroring(net) as mirror:
        destinations = edges(net, version)
        twin.run(("ip", "link", "set", "br-ex", "down"))

        _, failures = mirror.round()

        assert failures == ()
        for one in destinations:
            mine, theirs = matched(net, one), matched(twin, one)
            assert mine.agrees(theirs), (one, mine, theirs, script)
        mirror.settled()
        mirror.round(versions=())
        assert mirror.actual() == frozenset()


@pytest.mark.parametrize("version", [4, 6])
def test_what_main_throws_away_never_goes_on_to_other_links(mirror: Mirror, version: int) -> None:
    far, around = FAR[version][0], ip_network(PARTNER[version]).supernet(4)
    load(mirror.net, [f"route add throw {around}", f"route add {PARTNER[version]} via {far} dev br-ex"])

    mirror.round()

    assert way(mirror, version) == Way(discarded="unreachable")


@pytest.mark.parametrize("version", [4, 6])
def test_next_hops_by_other_links_are_left_out_and_named(mirror: Mirror, version: int) -> None:
    near, far = NEAR[version], FAR[version][0]
    hops = f"nexthop via {near[0]} dev eth1 nexthop via {near[1]} dev eth1 weight 3 nexthop via {far} dev br-ex"
    load(mirror.net, [f"route add {PARTNER[version]} {hops}"])

    _, (note,) = mirror.plan()
    mirror.round()

    assert note.reason == "SeveralHops"
    assert f"take via {near[0]} dev eth1, via {near[1]} dev eth1, never via {far} dev br-ex" in note.text
    assert way(mirror, version).legs == {("eth1", near[0], 1), ("eth1", near[1], 3)}


def test_of_ipv6_a_next_hop_without_a_router_is_left_out_and_named(mirror: Mirror) -> None:
    load(mirror.net, [*OBJECTS[6], f"route add {PARTNER[6]} nhid 8"])

    _, (note,) = mirror.plan()
    _, failures = mirror.round()

    assert failures == ()
    assert f"take via {NEAR[6][0]} dev eth1, never dev eth1" in note.text
    assert way(mirror, 6).legs == {("eth1", NEAR[6][0], 0)}
