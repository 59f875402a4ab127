"""`outgate trace` says what ovn-trace says, and what the counters outside see, of every kind of egress IP.

EgressIP prod is on n1 and serves p11, which runs there, and p21, which does not. The host of n1 has a static route to
the partner 203.0.113.20 (2001:db8:113::20); 203.0.113.10 is reached by the default alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import product
from pathlib import Path

import pytest

from outgate.lab.ovn import objects
from outgate.lab.ovn.addresses import (
    BRIDGE,
    CLUSTER,
    CLUSTER_ROUTER,
    OTHER_ROUTER,
    OUTSIDE,
    PARTNER,
    PRIMARY_EGRESS,
    SECONDARY_EGRESS,
    SECONDARY_NIC,
    SECONDARY_ROUTER,
    Address,
    Pair,
)
from outgate.lab.ovn.today import Assigned, Today
from outgate.lab.ovn.topology import OvnLaboratory, OvnPod
from outgate.model.routing import Routing, Semantics
from outgate.roles.egress_view import ViewOptions, objects_of
from outgate.roles.options import GatewayOptions
from tests.ovn.cluster import NodeRole, assignments_of, role_on
from tests.ovn.traces import Told, counter_of, learn_routers, look, reasons, sent, trace

OUTGATE = (sys.executable, "-m", "outgate")
CHOSEN = ("p11", "p21")
DEFAULT = ("0.0.0.0/0", "::/0")
DESTINATIONS: tuple[Address, ...] = (*OUTSIDE, *PARTNER)
AUTO, LEGACY = Routing(semantics=Semantics.AUTO), Routing()
HONOURED = Routing(semantics=Semantics.AUTO, honor_host_routes=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A cluster: its mode, whether an egress IP is on the primary NIC, what routes it, and where the partner is."""

    local: bool
    egress_ip: Pair = PRIMARY_EGRESS
    routing: Routing = LEGACY
    partner_by: str = SECONDARY_NIC
    with_default: bool = True  # of the secondary NIC
    pods: tuple[str, ...] = CHOSEN


CASES = {
    "local, legacy": Case(local=True),
    "shared, legacy": Case(local=False),
    "local, auto, by the second NIC": Case(local=True, routing=AUTO),
    "local, auto, by another router": Case(local=True, routing=AUTO, partner_by=BRIDGE),
    "shared, auto": Case(local=False, routing=AUTO),
    "shared, honoured": Case(local=False, routing=HONOURED, partner_by=BRIDGE),
    "secondary, local, legacy": Case(local=True, egress_ip=SECONDARY_EGRESS),
    "secondary, shared, legacy": Case(local=False, egress_ip=SECONDARY_EGRESS),
    "secondary, local, auto": Case(local=True, egress_ip=SECONDARY_EGRESS, routing=AUTO),
    "secondary, shared, auto": Case(local=False, egress_ip=SECONDARY_EGRESS, routing=AUTO),
    "secondary without a default": Case(local=False, egress_ip=SECONDARY_EGRESS, with_default=False),
    "ordinary pods, local": Case(local=True, pods=("p12", "p22")),
    "ordinary pods, shared": Case(local=False, pods=("p12", "p22")),
}


class Scene:
    """A laboratory in one of the cases, and the files that people would have of it."""

    def __init__(self, lab: OvnLaboratory, case: Case, place: Path) -> None:
        self.lab, self.case, self.place = lab, case, place
        self.pods = tuple(pod for pod in lab.pods if pod.name in CHOSEN)
        lab.set_mode(local=case.local)
        self._routes()
        assigned = Assigned(pair=case.egress_ip, node="n1", pods=self.pods)
        today = Today(lab)
        (today.assign_primary if case.egress_ip == PRIMARY_EGRESS else today.assign_secondary)(assigned)
        for node in lab.nodes.values():
            learn_routers(node)
        every = objects.cluster(lab, local=case.local, chosen=CHOSEN)
        objects.write(place, [*every, objects.egress_ip("prod", case.egress_ip, dict.fromkeys(case.egress_ip, "n1"))])
        self.look()

    def _routes(self) -> None:
        by, node = self.case.partner_by, self.lab.node("n1")
        hops = OTHER_ROUTER if by == BRIDGE else SECONDARY_ROUTER
        node.ip(*(f"route add {to} via {hop} dev {by}" for to, hop in zip(PARTNER, hops, strict=True)))
        if self.case.with_default:
            routes = zip(DEFAULT, SECONDARY_ROUTER, strict=True)
            node.ip(*(f"route add {to} via {hop} dev {SECONDARY_NIC} metric 9000" for to, hop in routes))

    def assist(self, role: NodeRole) -> None:
        """A round of outgate on n1, and the nodes looked at again."""
        role.round(assignments_of(self.case.egress_ip, self.pods), self.case.routing, local=self.case.local)
        self.look()

    def look(self) -> None:
        """Write down what the nodes hold now, as root: nftables too."""
        look(self.lab, self.place / "nodes")

    def words(self, pod: OvnPod, to: Address) -> tuple[str, ...]:
        """The command that asks every database."""
        words = [*OUTGATE, "trace", f"shop/{pod.name}", "--to", str(to), "-f", str(self.place)]
        words += ["--semantics", self.case.routing.semantics.value]
        for node in self.lab.nodes.values():
            words += ["--northbound", f"unix:{node.programs.northbound}"]
            words += ["--southbound", f"{node.name}=unix:{node.programs.southbound}"]
        return tuple(words)

    def trace(self, pod: OvnPod, to: Address) -> Told:
        """What that command says as JSON, without the time that a program takes to start."""
        view = ViewOptions(objects=GatewayOptions(manifests=self.place), routing=self.case.routing)
        return trace(self.lab, view, objects_of(view.objects), pod, to)


@pytest.fixture
def scene(lab: OvnLaboratory, tmp_path: Path, request: pytest.FixtureRequest) -> Scene:
    """The laboratory in the case that the test names."""
    return Scene(lab, request.param, tmp_path)


@pytest.fixture
def assisted(scene: Scene) -> Iterator[Scene]:
    """The same, with what outgate adds on n1 where its semantics are `auto`."""
    if scene.case.routing == LEGACY:
        yield scene
        return
    with role_on(scene.lab, "n1") as role:
        scene.assist(role)
        yield scene


@pytest.mark.parametrize("scene", CASES.values(), ids=CASES, indirect=True)
def test_the_walk_and_ovn_trace_and_the_packets_agree(assisted: Scene) -> None:
    lab = assisted.lab
    for pod, to in product((one for one in lab.pods if one.name in assisted.case.pods), DESTINATIONS):
        told = assisted.trace(pod, to)

        (walk,) = told["walks"]
        assert {"TraceDiffers", "NotAsPlanned"}.isdisjoint(reasons(told)), told["findings"]
        assert walk["certain"], walk["steps"]
        assert [one["zone"] for one in walk["said"]] == list(dict.fromkeys((pod.node, walk["node"])))
        (last,) = walk["said"][-1]["outputs"]
        if last["kind"] == "localnet":
            assert walk["said"][-1]["source"] == walk["leavesAs"]
        source, came = sent(lab, pod, to)
        if "NoDefaultRoute" in reasons(told):
            assert (source, told["isWell"]) == (None, False)
            continue
        assert (source, came) == (walk["leavesAs"], {counter_of(walk)}), walk["steps"]

    assert lab.by_default.leaked(CLUSTER) == lab.by_other.leaked(CLUSTER) == lab.by_secondary.leaked(CLUSTER) == 0


def chosen(scene: Scene) -> tuple[OvnPod, OvnPod]:
    """The pod on the egress node, and the one elsewhere."""
    near, far = scene.pods
    return near, far


LOCAL_AUTO = pytest.mark.parametrize("scene", [CASES["local, auto, by the second NIC"]], indirect=True)
LOCAL_LEGACY = pytest.mark.parametrize("scene", [CASES["local, legacy"]], indirect=True)


@LOCAL_AUTO
def test_a_route_that_discards_is_walked_to_its_end(assisted: Scene) -> None:
    near, _ = chosen(assisted)
    node = assisted.lab.node("n1")
    node.ip(*(f"route del {to}" for to in PARTNER), *(f"route add blackhole {to}" for to in PARTNER))
    with role_on(assisted.lab, "n1") as role:
        assisted.assist(role)

    for family in (0, 1):
        to = PARTNER[family]
        told = assisted.trace(near, to)

        assert (told["walks"][0]["fate"], told["findings"]) == ("DROPPED", [])
        assert f"{to}/{to.max_prefixlen} blackhole" in told["headline"]
        assert near.agent.fetch(to, timeout_s=1).source is None


@LOCAL_AUTO
def test_rows_that_nobody_has_added_yet_are_told(scene: Scene) -> None:
    near, _ = chosen(scene)

    for family in (0, 1):
        to = PARTNER[family]
        told = scene.trace(near, to)

        assert (reasons(told), told["isWell"]) == (["NotAsPlanned"], False)
        assert sent(scene.lab, near, to) == (str(PRIMARY_EGRESS[family]), {"default"})
        assert (told["walks"][0]["link"], told["walks"][0]["leavesAs"]) == (BRIDGE, str(PRIMARY_EGRESS[family]))


@LOCAL_AUTO
def test_a_translation_that_somebody_took_away_is_stopped_by_the_guard(assisted: Scene) -> None:
    near, _ = chosen(assisted)
    for version, pod in zip((4, 6), near.addresses, strict=True):
        element = ("delete", "element", "inet", "outgate", f"pod_snat{version}", f"{{ {pod} }}")
        assisted.lab.node("n1").net.run(("nft", *element))
    assisted.look()

    for family in (0, 1):
        to = PARTNER[family]
        told = assisted.trace(near, to)

        assert told["walks"][0]["fate"] == "DROPPED"
        assert "is no egress IP of" in told["headline"]
        assert near.agent.fetch(to, timeout_s=1).source is None
    assert assisted.lab.by_secondary.seen() == {}


@LOCAL_AUTO
def test_a_firewall_that_drops_what_is_forwarded_is_walked_into(assisted: Scene) -> None:
    near, _ = chosen(assisted)
    for program in ("iptables-nft", "ip6tables-nft"):
        assisted.lab.node("n1").net.run((program, "-P", "FORWARD", "DROP"))
    assisted.look()

    for family in (0, 1):
        told = assisted.trace(near, PARTNER[family])

        assert told["walks"][0]["fate"] == "DROPPED"
        assert "FORWARD lets no pod's packet out by eth1" in told["headline"]
        assert near.agent.fetch(PARTNER[family], timeout_s=1).source is None
        assert assisted.trace(near, OUTSIDE[family])["isWell"]
        assert near.agent.fetch(OUTSIDE[family], timeout_s=5).source == PRIMARY_EGRESS[family]


@LOCAL_LEGACY
def test_an_acl_is_what_ovn_trace_sees_and_the_walk_does_not(scene: Scene) -> None:
    near, _ = chosen(scene)
    scene.lab.node("n1").programs.nbctl("acl-add", "n1", "from-lport", "1001", f"ip4.dst == {PARTNER[0]}", "drop")
    scene.lab.settle()

    told = scene.trace(near, PARTNER[0])

    (found,) = (one for one in told["findings"] if one["reason"] == "TraceDiffers")
    assert found["about"] == "zone n1"
    dropped = f"it is dropped by ls_in_acl 2001 `ip4.dst == {PARTNER[0]}`"
    assert dropped in found["text"]
    assert dropped in told["headline"]
    assert near.agent.fetch(PARTNER[0], timeout_s=1).source is None


@LOCAL_LEGACY
def test_a_policy_of_an_external_gateway_or_an_egress_service_wins_in_all_three(scene: Scene) -> None:
    near, far = chosen(scene)
    programs = scene.lab.node("n1").programs
    match = f'inport == "rtos-n1" && ip4.src == {near.addresses[0]} && ip4.dst != {CLUSTER[0]}'
    hop = str(scene.lab.node("n1").at.management[0])
    for priority in ("101", "501"):
        programs.nbctl("lr-policy-add", CLUSTER_ROUTER, priority, match, "reroute", hop)
        scene.lab.settle()

        told = scene.trace(near, OUTSIDE[0])

        assert reasons(told) == ["NotAsPlanned"]
        assert f"policy {priority} `{match}`" in json.dumps(told["walks"][0]["steps"]).replace('\\"', '"')
        assert sent(scene.lab, near, OUTSIDE[0]) == (told["walks"][0]["leavesAs"], {"default"})
        assert told["walks"][0]["leavesAs"] == str(scene.lab.node("n1").at.primary[0])
        programs.nbctl("lr-policy-del", CLUSTER_ROUTER, priority, match)
    assert reasons(scene.trace(far, OUTSIDE[0])) == []


@LOCAL_LEGACY
def test_an_egress_ip_on_both_nodes_is_two_ways_of_which_packets_take_either(scene: Scene) -> None:
    near, _ = chosen(scene)
    here, there = scene.lab.node("n1"), scene.lab.node("n2")
    pod, spare = near.addresses[0], "192.168.99.151"
    there.programs.nbctl("lr-nat-add", there.at.router, "snat", spare, str(pod))
    words = (CLUSTER_ROUTER, "100", f"ip4.src == {pod}")
    here.programs.nbctl("lr-policy-del", *words)
    here.programs.nbctl("lr-policy-add", *words, "reroute", f"{here.at.join[0]},{there.at.transit[0]}")
    scene.lab.settle()

    told = scene.trace(near, OUTSIDE[0])

    assert {(one["node"], one["leavesAs"]) for one in told["walks"]} == {
        ("n1", str(PRIMARY_EGRESS[0])),
        ("n2", spare),
    }
    assert reasons(told) == []
    assert near.agent.fetch(OUTSIDE[0], timeout_s=5).source in (PRIMARY_EGRESS[0], ip_address(spare))


@LOCAL_AUTO
def test_on_the_egress_node_itself_no_file_of_it_is_needed(assisted: Scene) -> None:
    _, far = chosen(assisted)
    told = assisted.trace(far, PARTNER[0])
    for file in (assisted.place / "nodes").iterdir():
        file.unlink()

    ran = assisted.lab.node("n1").net.run((*assisted.words(far, PARTNER[0]), "--here", "n1", "-o", "json"))

    here = json.loads(ran.stdout)["trace"]
    assert here["walks"] == told["walks"]
    assert here["headline"].endswith(f"leaves n1 by eth1 via 192.168.55.1 as {PRIMARY_EGRESS[0]}")


@LOCAL_AUTO
def test_the_text_has_the_headline_first_and_numbers_the_steps(assisted: Scene) -> None:
    _, far = chosen(assisted)

    ran = subprocess.run(assisted.words(far, PARTNER[0]), capture_output=True, text=True, check=False)

    lines = ran.stdout.splitlines()
    assert lines[0].endswith("leaves n1 by eth1 via 192.168.55.1 as 192.168.99.150")
    numbers = [int(line.split()[0]) for line in lines[2:] if line.split()[:1] and line.split()[0].isdecimal()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= 10
    assert ran.stdout.count("ovn-trace") >= 2


@LOCAL_LEGACY
def test_a_database_that_is_none_is_refused_by_its_name(scene: Scene) -> None:
    near, _ = chosen(scene)
    words = scene.words(near, OUTSIDE[0])
    programs = scene.lab.node("n1").programs
    northbound, southbound = f"unix:{programs.northbound}", f"unix:{programs.southbound}"

    for option, target, words_of_it in (
        ("--northbound", southbound, f"read the northbound database at {southbound}"),
        ("--northbound", "n1=unix:/nowhere/nb.sock", "OVN_Northbound at unix:/nowhere/nb.sock"),
        ("--southbound", "n1=unix:/nowhere/sb.sock", "OVN_Southbound at unix:/nowhere/sb.sock"),
        ("--southbound", f"n1={northbound}", f"read the southbound database at {northbound}"),
    ):
        ran = subprocess.run((*words, option, target), capture_output=True, text=True, check=False)

        assert ran.returncode == 2
        assert words_of_it in ran.stderr
