"""A node answers for egress IPs that stand on none of its links: 192.168.55.150 and fd55::150, on eth1.

    pod (10.128.0.5, fd01::5) -- pods, node, eth1 -- port, router (192.168.55.1, fd55::1)

eth2 of the node leads to another wire.

The node translates what pods send by eth1 to the egress IP. The router has no route to pods, so a pod that hears from
it shows that the node answers for the egress IP, and takes the reply.
"""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import pytest

from outgate.lab.namespace import Namespace
from outgate.model.net import OWN_PROTOCOL, Address, Answered, LinkName
from outgate.model.state import Failure
from outgate.systems.kernel import uapi
from outgate.systems.kernel.answers import read, write
from outgate.systems.netlink import NetlinkSocket

LIMIT_S = 20.0  # what the kernel does by itself takes milliseconds; this only bounds a failure
ETH1, ETH2 = LinkName("eth1"), LinkName("eth2")
EGRESS, EGRESS6 = (Answered(link=ETH1, address=ip_address(one)) for one in ("192.168.55.150", "fd55::150"))
FAMILIES = pytest.mark.parametrize("egress", [EGRESS, EGRESS6], ids=["IPv4", "IPv6"])
ROUTER = {4: "192.168.55.1", 6: "fd55::1"}
NODE_SCRIPT = """
sysctl -qw net.ipv4.conf.eth1.forwarding=1 net.ipv4.conf.pods.forwarding=1 net.ipv6.conf.all.forwarding=1
ip address add 192.168.55.10/24 dev eth1
ip address add fd55::10/64 dev eth1 nodad
ip address add 10.128.0.1/24 dev pods
ip address add fd01::1/64 dev pods nodad
ip link set lo up
nft -f - <<EOF
table inet lab {
  chain out {
    type nat hook postrouting priority 100
    ip saddr 10.128.0.0/24 oif { eth1, eth2 } snat ip to 192.168.55.150
    ip6 saddr fd01::/64 oif { eth1, eth2 } snat ip6 to fd55::150
  }
}
EOF
"""
POD_SCRIPT = """
ip address add 10.128.0.5/24 dev eth0
ip address add fd01::5/64 dev eth0 nodad
ip route add default via 10.128.0.1
ip route add default via fd01::1
"""
ROUTER_SCRIPT = """
ip address add 192.168.55.1/24 dev port
ip address add fd55::1/64 dev port nodad
"""
FOREIGN = """
ip route add local 192.168.55.151/32 dev eth1 table local proto static
ip route add local 192.168.55.152/32 dev eth1 table local proto 111
ip route add local 192.168.55.150/32 dev lo table local proto static metric 7
ip route add local fd55::151/128 dev eth1 table local proto static
ip neigh add proxy fd55::151 dev eth1 protocol static
ip neigh add proxy fd55::150 dev pods protocol static
ip neigh add proxy 192.168.55.153 dev eth1
"""


@dataclass(frozen=True, slots=True)
class Site:
    node: Namespace
    pod: Namespace
    router: Namespace
    socket: NetlinkSocket

    def read(self) -> frozenset[Answered]:
        with self.node.inside():
            return read(self.socket)

    def write(self, make: Sequence[Answered], drop: Sequence[Answered] = ()) -> tuple[Failure, ...]:
        indexes = {LinkName(link["ifname"]): link["ifindex"] for link in shown(self.node, "link")}
        with self.node.inside():
            return write(self.socket, indexes, make, drop)

    def pod_hears(self, version: int) -> bool:
        return pings(self.pod, ROUTER[version])

    def router_believes(self, address: Address) -> dict[str, Any]:
        """The router's neighbour entry for an address; empty when there is none."""
        return next(iter(shown(self.router, "neighbour", "show", str(address))), {})

    def listing(self) -> str:
        """All that can have to do with who answers for what, as a bystander sees it."""
        asked = ("address", "-4 route show table all", "-6 route show table all", "neigh show proxy")
        settings = "net.ipv6.conf.eth1.proxy_ndp net.ipv6.neigh.eth1.proxy_delay net.ipv4.conf.eth1.arp_ignore"
        return run(self.node, "; ".join([*(f"ip -d {what}" for what in asked), f"sysctl {settings}"]))


@pytest.fixture
def site() -> Iterator[Site]:
    with Namespace("node") as node, Namespace("pod") as pod, Namespace("router") as router:
        for each in (node, pod, router):
            each.sysctl("net/ipv6/conf/default/accept_dad", 0)
        for link, peer, far in (("eth1", "port", router), ("eth2", "port2", router), ("pods", "eth0", pod)):
            node.run(("ip", "link", "add", link, "type", "veth", "peer", "name", peer, "netns", far.path))
            node.run(("ip", "link", "set", link, "up"))
            far.run(("ip", "link", "set", peer, "up"))
        for each, script in ((node, NODE_SCRIPT), (pod, POD_SCRIPT), (router, ROUTER_SCRIPT)):
            run(each, script)
        until(lambda: all(map(settled, (node, pod, router))), "carrier and addresses everywhere")
        with node.inside():
            opened = NetlinkSocket(uapi.NETLINK_ROUTE)
        with opened:
            yield Site(node, pod, router, opened)


def run(namespace: Namespace, script: str) -> str:
    return namespace.run(("sh", "-ec", script)).stdout


def shown(namespace: Namespace, *arguments: str) -> list[dict[str, Any]]:
    """What iproute2 shows; it knows none of our code."""
    return list(json.loads(namespace.run(("ip", "-j", "-d", *arguments)).stdout or "[]"))


def settled(namespace: Namespace) -> bool:
    links = (link for link in shown(namespace, "link") if link["ifname"] != "lo")
    return all(link["operstate"] == "UP" for link in links) and "tentative" not in run(namespace, "ip address")


def pings(namespace: Namespace, address: str) -> bool:
    return not namespace.run(("ping", "-n", "-c1", "-W1", address), check=False).returncode


def until(condition: Callable[[], object], what: str) -> None:
    """Ask again and again, at most for the limit, until the condition holds."""
    give_up = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < give_up, f"never came true: {what}"
        select.select([], [], [], 0.01)


def mac_of(namespace: Namespace, link: str) -> str:
    (found,) = shown(namespace, "link", "show", link)
    return str(found["address"])


@FAMILIES
def test_a_pod_hears_from_the_router_though_the_egress_ip_stands_on_no_link(site: Site, egress: Answered) -> None:
    version = egress.address.version
    before = run(site.node, "ip -d address")
    assert not site.pod_hears(version)

    assert site.write([egress]) == ()

    until(lambda: site.pod_hears(version), "the pod hears from the router")
    assert site.router_believes(egress.address)["lladdr"] == mac_of(site.node, "eth1")
    assert site.read() == {egress}
    assert run(site.node, "ip -d address") == before


@FAMILIES
def test_a_neighbour_that_asks_whether_the_node_is_still_there_is_told(site: Site, egress: Answered) -> None:
    site.write([egress])
    until(lambda: site.pod_hears(egress.address.version), "the pod hears from the router")

    run(site.router, f"ip neighbour change {egress.address} dev port nud probe")  # asks by unicast from now on

    until(lambda: site.router_believes(egress.address)["state"] != ["PROBE"], "the router has an answer, or gave up")
    assert site.router_believes(egress.address)["state"] == ["REACHABLE"]


@FAMILIES
def test_writing_again_changes_nothing(site: Site, egress: Answered) -> None:
    site.write([egress])
    before = site.listing()
    with site.node.inside():
        listener = NetlinkSocket(uapi.NETLINK_ROUTE)
    with listener:
        listener.subscribe([3, uapi.RTNLGRP_IPV4_ROUTE, uapi.RTNLGRP_IPV6_ROUTE])  # 3: RTNLGRP_NEIGH

        assert site.write([egress]) == ()

        assert list(listener.events()) == []
    assert site.listing() == before


def test_what_others_made_is_not_ours_and_the_same_before_and_after(site: Site) -> None:
    run(site.node, FOREIGN)
    before = site.listing()
    assert site.read() == frozenset()

    assert site.write([EGRESS, EGRESS6]) == ()
    assert site.read() == {EGRESS, EGRESS6}
    during = site.listing().splitlines()
    lost = [line for line in before.splitlines() if line not in during and "proxy_" not in line]
    assert lost == []

    assert site.write([], [EGRESS, EGRESS6]) == ()
    assert site.read() == frozenset()
    # A proxy entry of others stands there: whether it wants to be answered for is not for us to say.
    switches = "proxy_ndp", "proxy_delay"
    assert without(site.listing(), switches) == without(before, switches)
    assert site.node.sysctl("net/ipv6/conf/eth1/proxy_ndp") == "1"


def without(text: str, words: Sequence[str]) -> list[str]:
    return [line for line in text.splitlines() if not any(word in line for word in words)]


@FAMILIES
def test_a_link_alone_with_ours_is_as_it_was_when_they_are_gone(site: Site, egress: Answered) -> None:
    before = site.listing()
    site.write([egress])
    assert site.listing() != before

    assert site.write([], [egress]) == ()

    assert site.listing() == before
    assert not site.pod_hears(egress.address.version)
    assert site.write([], [egress]) == ()
    assert site.listing() == before


def test_while_one_of_two_stands_the_link_goes_on_answering(site: Site) -> None:
    other = Answered(link=ETH1, address=ip_address("fd55::160"))
    site.write([EGRESS6, other])

    assert site.write([], [other]) == ()

    until(lambda: site.pod_hears(6), "the pod hears from the router")
    assert site.node.sysctl("net/ipv6/conf/eth1/proxy_ndp") == "1"
    assert site.node.sysctl("net/ipv6/neigh/eth1/proxy_delay") == "0"


@pytest.mark.parametrize(
    ("egress", "loss"),
    [
        (EGRESS, "ip -4 address flush dev eth1; ip address add 192.168.55.10/24 dev eth1"),
        (EGRESS, "ip route flush table local proto 111"),
        (EGRESS6, "ip link set eth1 down; ip link set eth1 up; ip address replace fd55::10/64 dev eth1 nodad"),
        (EGRESS6, "ip -6 route flush table local proto 111"),
        (EGRESS6, "ip neighbour del proxy fd55::150 dev eth1"),
        (EGRESS6, "sysctl -w net.ipv6.conf.eth1.proxy_ndp=0"),
        (EGRESS6, "sysctl -w net.ipv6.neigh.eth1.proxy_delay=80"),
    ],
)
def test_what_is_lost_is_seen_and_made_again_by_the_next_write(site: Site, egress: Answered, loss: str) -> None:
    site.write([egress])

    run(site.node, loss)

    assert egress not in site.read()
    assert site.write([egress]) == ()
    assert site.read() == {egress}
    until(lambda: settled(site.node), "carrier and addresses")
    until(lambda: site.pod_hears(egress.address.version), "the pod hears from the router")


def test_ipv4_is_answered_for_after_the_link_was_down_without_a_write(site: Site) -> None:
    site.write([EGRESS])

    run(site.node, "ip link set eth1 down; ip link set eth1 up")

    assert site.read() == {EGRESS}
    until(lambda: site.pod_hears(4), "the pod hears from the router")


@FAMILIES
def test_who_calls_the_egress_ip_reaches_the_node_unless_a_firewall_drops_it(site: Site, egress: Answered) -> None:
    site.write([egress])
    until(lambda: pings(site.router, str(egress.address)), "the node answers for itself")
    with site.node.inside():
        server = socket.create_server(("::", 8080), family=socket.AF_INET6, dualstack_ipv6=True)
    with server:
        assert calls(site.router, egress.address)

        run(site.node, "nft 'add chain inet lab in { type filter hook input priority 0; }'")
        run(
            site.node, f"nft add rule inet lab in fib daddr type local ct state new meta iif eth1 {saying(egress)} drop"
        )

        assert not calls(site.router, egress.address)
        assert not pings(site.router, str(egress.address))
    until(lambda: site.pod_hears(egress.address.version), "replies to pods come in all the same")


def saying(egress: Answered) -> str:
    return f"{'ip' if egress.address.version == 4 else 'ip6'} daddr {egress.address}"


def calls(namespace: Namespace, address: Address) -> bool:
    with namespace.inside():
        caller = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6)
    with caller:
        caller.settimeout(1)
        try:
            caller.connect((str(address), 8080))
        except TimeoutError:
            return False
        return True


@FAMILIES
def test_an_egress_ip_moves_from_one_nic_to_the_other(site: Site, egress: Answered) -> None:
    run(site.node, "sysctl -qw net.ipv4.conf.eth2.forwarding=1")
    before = site.node.sysctl("net/ipv6/neigh/eth1/proxy_delay")
    site.write([egress])
    moved = Answered(link=ETH2, address=egress.address)

    assert site.write([moved], [egress]) == ()

    assert site.read() == {moved}
    assert site.node.sysctl("net/ipv6/conf/eth1/proxy_ndp") == "0"
    assert site.node.sysctl("net/ipv6/neigh/eth1/proxy_delay") == before
    assert site.write([], [moved]) == ()
    assert site.read() == frozenset()


@pytest.mark.parametrize("scope", ["eth1", "all"])
def test_where_the_kernel_answers_for_addresses_of_links_alone_it_is_a_failure_that_says_so(
    site: Site, scope: str
) -> None:
    site.node.sysctl(f"net/ipv4/conf/{scope}/arp_ignore", 1)

    (failure,) = site.write([EGRESS, EGRESS6])

    assert failure.resource == EGRESS
    assert f"net.ipv4.conf.{scope}.arp_ignore is 1" in failure.words
    assert site.read() == {EGRESS6}


def test_a_setting_that_stops_the_answers_later_is_told_with_what_stands(site: Site) -> None:
    site.write([EGRESS, EGRESS6])
    site.node.sysctl("net/ipv4/conf/eth1/arp_ignore", 2)
    site.node.sysctl("net/ipv6/conf/eth1/forwarding", 0)

    faults = {one.address: one.fault for one in site.read()}

    assert "arp_ignore is 2" in faults[EGRESS.address]
    assert "net.ipv6.conf.eth1.forwarding is not 1" in faults[EGRESS6.address]
    run(site.router, "ip neighbour flush all")
    assert not pings(site.router, str(EGRESS.address))
    assert not pings(site.router, str(EGRESS6.address))


def test_where_ipv6_is_not_forwarded_it_is_a_failure_that_says_so(site: Site) -> None:
    site.node.sysctl("net/ipv6/conf/eth1/forwarding", 0)

    (failure,) = site.write([EGRESS, EGRESS6])

    assert failure.resource == EGRESS6
    assert "net.ipv6.conf.eth1.forwarding is not 1" in failure.words
    assert site.read() == {EGRESS}
    assert site.node.sysctl("net/ipv6/conf/eth1/proxy_ndp") == "0"


@pytest.mark.parametrize(
    ("egress", "theirs"),
    [
        (EGRESS, "ip route add local 192.168.55.150/32 dev lo table local proto static metric 111"),
        (EGRESS6, "ip route add local fd55::150/128 dev lo table local proto static metric 111"),
        (EGRESS6, "ip neigh add proxy fd55::150 dev eth1"),
        (EGRESS6, "ip neigh add proxy fd55::150 dev eth1 protocol static"),
    ],
)
def test_what_stands_in_our_place_and_is_not_ours_is_a_failure_and_stays(
    site: Site, egress: Answered, theirs: str
) -> None:
    run(site.node, theirs)
    before = site.listing()

    (failure,) = site.write([egress])

    assert failure.resource == egress
    assert "not ours stands in its place" in failure.words
    site.write([], [egress])
    assert site.listing() == before


def test_a_link_that_is_not_there_stops_no_other(site: Site) -> None:
    lost = Answered(link=LinkName("gone0"), address=ip_address("192.168.55.160"))

    assert site.write([lost, EGRESS]) == (Failure(lost, "there is no link gone0"),)

    assert site.read() == {EGRESS}
    assert site.write([], [lost]) == ()


def test_reading_asks_the_kernel_for_ours_alone(site: Site) -> None:
    site.write([EGRESS, EGRESS6])
    routes = "\n".join(f"route add 10.{i >> 8}.{i & 255}.0/24 dev eth1 proto 111 metric 111" for i in range(2000))
    site.node.run(("ip", "-batch", "-"), input=routes)
    received: list[bytes] = []

    class Listening(NetlinkSocket):
        def _receive(self, flags: int = 0) -> bytes:
            received.append(super()._receive(flags))
            return received[-1]

    with site.node.inside(), Listening(uapi.NETLINK_ROUTE) as listening:
        assert read(listening) == {EGRESS, EGRESS6}
    assert sum(map(len, received)) < 4096
    assert bytes([OWN_PROTOCOL]) in received[0]
