"""A cluster node with a secondary NIC, programmed as OVN-Kubernetes does it. Then somebody adds a route to the host.

What `outgate node tables` says is held against the kernel: a pod's packet and the host's own are looked up in it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from outgate.lab.namespace import Namespace

POD, POD6 = "10.244.0.5", "fd01:0:0:1::5"
SCRIPT = """
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
ip link set lo up
for nic in br-ex eth1 mp0; do
  ip link add $nic type veth peer name p-$nic
  ip link set p-$nic up
  ip link set $nic up
done
ip address add 192.168.1.2/24 dev br-ex
ip address add 10.10.10.2/24 dev eth1
ip address add 10.244.0.2/16 dev mp0
ip address add fd10::2/64 dev eth1 nodad
ip address add fd01:0:0:1::2/64 dev mp0 nodad
ip route add default via 192.168.1.1 dev br-ex
ip route add 172.16.0.0/16 via 10.10.10.1 dev eth1
ip -6 route add fd16::/64 via fd10::1 dev eth1
"""


class Node:
    """The node's namespace, and what OVN-Kubernetes would do there."""

    def __init__(self, net: Namespace) -> None:
        self.net = net
        net.run(["sh", "-ec", SCRIPT])
        (link,) = json.loads(net.run(["ip", "-j", "link", "show", "dev", "eth1"]).stdout)
        self.table = 1000 + int(link["ifindex"])

    def copy(self) -> None:
        """Copy the routes by eth1 into its table, and make a default up where there is none."""
        for family in ("-4", "-6"):
            routes = json.loads(self.net.run(["ip", family, "-j", "route", "show", "dev", "eth1"]).stdout)
            for one in routes:
                if one["dst"].startswith(("fe80", "ff")):
                    continue
                via = ["via", one["gateway"]] if "gateway" in one else []
                metric = ["metric", str(one["metric"])] if "metric" in one else []
                self.ip(family, "route", "replace", one["dst"], *via, "dev", "eth1", *metric, "table", str(self.table))
            if not any(one["dst"] == "default" for one in routes):
                self.ip(family, "route", "replace", "default", "dev", "eth1", "table", str(self.table))

    def serve(self) -> None:
        """Send the pod's packets to the table."""
        self.ip("rule", "add", "priority", "6000", "from", POD, "lookup", str(self.table))
        self.ip("-6", "rule", "add", "priority", "6000", "from", POD6, "lookup", str(self.table))

    def ip(self, *words: str) -> None:
        self.net.run(["ip", *words])

    def asked(self, *options: str) -> tuple[int, str]:
        """Run `outgate node tables` there."""
        said = self.net.run([sys.executable, "-m", "outgate", "node", "tables", *options], check=False)
        assert said.returncode in (0, 1), said.stderr
        return said.returncode, " ".join(said.stdout.split())

    def reasons(self) -> list[str]:
        _, said = self.asked("-o", "json")
        return [finding["reason"] for table in json.loads(said)["tables"] for finding in table["findings"]]

    def looked_up(self, destination: str, *, source: str = "") -> tuple[str, str]:
        """Return link and next hop of a packet: the pod's, or the host's own."""
        words = ["from", source, "iif", "mp0"] if source else []
        found: list[dict[str, Any]] = json.loads(
            self.net.run(["ip", "-j", "route", "get", destination, *words], check=True).stdout
        )
        return str(found[0]["dev"]), str(found[0].get("gateway", ""))


@pytest.fixture
def node() -> Iterator[Node]:
    with Namespace("node-tables") as net:
        yield Node(net)


def test_a_node_without_such_tables_has_nothing_to_say(node: Node) -> None:
    assert node.asked() == (0, node.asked()[1])
    assert "no pod is sent to a table" in node.asked()[1]


def test_a_made_up_default_is_told_as_what_it_does(node: Node) -> None:
    node.copy()
    node.serve()

    code, said = node.asked("--to", "203.0.113.9")

    assert (code, node.reasons()) == (1, ["NoDefaultRoute", "NoDefaultRoute"])
    assert "looked for on the LAN" in said
    assert node.looked_up("203.0.113.9", source=POD) == ("eth1", "")  # by ARP, on the LAN
    assert node.looked_up("203.0.113.9") == ("br-ex", "192.168.1.1")
    for words in ("its pods dev eth1 (0.0.0.0/0)", "no route by this NIC", "via 192.168.1.1 dev br-ex (0.0.0.0/0)"):
        assert words in said


def test_a_route_that_came_later_is_missed_and_the_kernel_agrees(node: Node) -> None:
    node.ip("route", "add", "default", "via", "10.10.10.1", "dev", "eth1", "metric", "200")
    node.ip("-6", "route", "add", "default", "via", "fd10::1", "dev", "eth1")
    node.copy()
    node.serve()
    assert node.asked()[0] == 0, node.asked()[1]

    node.ip("route", "add", "10.20.0.0/16", "via", "10.10.10.9", "dev", "eth1")
    node.ip("-6", "route", "add", "fd20::/64", "via", "fd10::9", "dev", "eth1")

    code, said = node.asked("--to", "10.20.0.5")
    assert (code, node.reasons()) == (1, ["RouteNotCopied", "RouteNotCopied"])
    assert "10.20.0.0/16 via 10.10.10.9 dev eth1" in said
    assert "its pods take 0.0.0.0/0 via 10.10.10.1 dev eth1 metric 200 instead" in said
    assert node.looked_up("10.20.0.5", source=POD) == ("eth1", "10.10.10.1")
    assert node.looked_up("10.20.0.5") == ("eth1", "10.10.10.9")
    assert node.looked_up("fd20::1", source=POD6) == ("eth1", "fd10::1")
    node.copy()
    assert node.asked()[0] == 0
    node.ip("route", "del", "10.20.0.0/16")
    assert node.reasons() == ["RouteLeftOver"]


def test_several_next_hops_and_what_the_host_drops_are_told(node: Node) -> None:
    node.ip("route", "add", "default", "via", "10.10.10.1", "dev", "eth1", "metric", "200")
    node.ip("-6", "route", "add", "default", "via", "fd10::1", "dev", "eth1")
    node.copy()
    node.serve()

    node.ip(
        "route", "add", "10.30.0.0/16", "nexthop", "via", "10.10.10.8", "dev", "eth1", "nexthop", "via", "192.168.1.8"
    )
    node.ip("route", "add", "blackhole", "10.66.0.0/16")
    node.ip("-6", "route", "add", "prohibit", "fd66::/64")

    assert node.reasons() == ["PathsNotCopied", "DropNotCopied", "DropNotCopied"]
    assert node.looked_up("10.66.0.1", source=POD) == ("eth1", "10.10.10.1")


def test_a_link_that_went_away_leaves_pods_on_the_main_table(node: Node) -> None:
    node.copy()
    node.serve()
    node.ip("link", "set", "eth1", "down")
    assert node.reasons() == ["TableEmpty", "TableEmpty"]  # the kernel took the routes, the rules stand
    assert node.looked_up("203.0.113.9", source=POD) == ("br-ex", "192.168.1.1")
    node.ip("link", "del", "eth1")
    assert node.reasons() == ["TableWithoutLink"]
