"""The OVN laboratory as built: nodes n1 and n2, each a zone with two pods and a second NIC; EgressIP of today there.

Pods 10.128.0.0/14 (fd01::/48), nodes 192.168.99.0/24 (fd99::/64), secondary NICs 192.168.55.0/24 (fd55::/64), outside
203.0.113.10 and the partner 203.0.113.20 (2001:db8:113::10 and ::20). The counters outside tell by which LAN and router
packets came.
"""

from __future__ import annotations

import contextlib
from itertools import product
from pathlib import Path

import pytest

from outgate.lab.ovn.addresses import (
    BRIDGE,
    CLUSTER,
    OTHER_ROUTER,
    OUTSIDE,
    PARTNER,
    PRIMARY_EGRESS,
    SECONDARY_EGRESS,
    SECONDARY_NIC,
    SECONDARY_ROUTER,
)
from outgate.lab.ovn.today import Assigned, Today
from outgate.lab.ovn.topology import OvnLaboratory

MODE = pytest.mark.parametrize("local", [False, True], ids=["shared", "local"])
FAMILIES = (0, 1)  # IPv4, IPv6: places in the pairs of addresses
DEFAULT = ("0.0.0.0/0", "::/0")
COUNT_SOURCES = """
table netdev seen {
  set sources4 { type ipv4_addr; flags dynamic; size 99; }
  set sources6 { type ipv6_addr; flags dynamic; size 99; }
  chain arrived {
    type filter hook ingress device "eth0" priority 0; policy accept;
    update @sources4 { ip saddr }
    update @sources6 { ip6 saddr }
  }
}
"""


def by_other_router(family: int) -> str:
    """The static route of the stories."""
    return f"route add {PARTNER[family]} via {OTHER_ROUTER[family]} dev {BRIDGE}"


@MODE
def test_a_pod_leaves_as_its_node_in_both_gateway_modes(lab: OvnLaboratory, *, local: bool) -> None:
    lab.set_mode(local=local)

    for pod, family in product(lab.pods, FAMILIES):
        node = lab.node(pod.node).at.primary[family]
        assert pod.agent.fetch(OUTSIDE[family], timeout_s=5).source == node

    assert lab.by_default.leaked(CLUSTER) == 0


def test_pods_of_two_zones_reach_each_other_untranslated(lab: OvnLaboratory) -> None:
    here, there = lab.node("n1").pods[0], lab.node("n2").pods[0]
    there.net.run(("nft", "-f", "-"), input=COUNT_SOURCES)

    for address in there.addresses:
        here.net.run(("ping", "-c", "3", "-W", "5", str(address)))

    listed = there.net.run(("nft", "list", "table", "netdev", "seen")).stdout
    assert all(str(address) in listed for address in here.addresses)


def test_in_local_mode_an_ordinary_pod_follows_the_hosts_static_route(lab: OvnLaboratory) -> None:
    lab.set_mode(local=True)
    lab.node("n1").ip(*map(by_other_router, FAMILIES))

    for family in FAMILIES:
        lab.node("n1").pods[0].agent.fetch(PARTNER[family], timeout_s=5)

    assert set(lab.by_other.seen()) == set(lab.node("n1").at.primary)


def test_today_an_egress_ip_on_the_primary_nic_never_looks_at_host_routes(lab: OvnLaboratory) -> None:
    lab.set_mode(local=True)
    lab.node("n1").ip(*map(by_other_router, FAMILIES))
    near, far = lab.node("n1").pods[0], lab.node("n2").pods[0]
    Today(lab).assign_primary(Assigned(pair=PRIMARY_EGRESS, node="n1", pods=(near, far)))

    for pod, family in product((near, far), FAMILIES):
        assert pod.agent.fetch(PARTNER[family], timeout_s=5).source == PRIMARY_EGRESS[family]

    assert set(lab.by_other.seen()) == set()
    ordinary = lab.node("n1").pods[1]
    assert [ordinary.agent.fetch(one, timeout_s=5).source for one in OUTSIDE] == [*lab.node("n1").at.primary]


def test_today_a_secondary_nic_without_default_reaches_its_lan_alone(lab: OvnLaboratory) -> None:
    near, far = lab.node("n1").pods[0], lab.node("n2").pods[0]
    Today(lab).assign_secondary(Assigned(pair=SECONDARY_EGRESS, node="n1", pods=(near, far)))

    for pod, family in product((near, far), FAMILIES):
        assert pod.agent.fetch(SECONDARY_ROUTER[family], timeout_s=5).source == SECONDARY_EGRESS[family]
        assert pod.agent.fetch(OUTSIDE[family], timeout_s=1).source is None

    assert lab.by_secondary.leaked(CLUSTER) == lab.by_default.leaked(CLUSTER) == 0


def test_today_a_secondary_nic_takes_the_routes_that_stood_there(lab: OvnLaboratory) -> None:
    routes = zip(DEFAULT, SECONDARY_ROUTER, strict=True)
    lab.node("n1").ip(*(f"route add {dst} via {hop} dev {SECONDARY_NIC} metric 500" for dst, hop in routes))
    near, far = lab.node("n1").pods[0], lab.node("n2").pods[0]
    Today(lab).assign_secondary(Assigned(pair=SECONDARY_EGRESS, node="n1", pods=(near, far)))

    for pod, family in product((near, far), FAMILIES):
        assert pod.agent.fetch(OUTSIDE[family], timeout_s=5).source == SECONDARY_EGRESS[family]


def test_nothing_of_it_is_left(lab: OvnLaboratory) -> None:
    place = lab.node("n1").programs.place
    assert programs_of(place) != []

    lab.close()

    assert not place.exists()
    assert programs_of(place) == []


def programs_of(place: Path) -> list[str]:
    """The command lines of running programs that name the laboratory's directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                words = (entry / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
                found += [words] if str(place.parent) in words else []
    return found
