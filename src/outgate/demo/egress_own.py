"""The last act of the story of EgressIP: OVN-Kubernetes' own feature is off, and outgate does all of it.

What the API server is between the roles is a dictionary here; everything else is as in the other acts.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from outgate.demo.screen import Screen
from outgate.lab.ovn import objects
from outgate.lab.ovn.addresses import BRIDGE, CLUSTER, OUTSIDE, PRIMARY_EGRESS, mac_of
from outgate.lab.ovn.topology import OvnLaboratory
from outgate.model.intent import EgressNode, EgressRouting, Intent
from outgate.model.net import LinkName, Mac
from outgate.model.placement import NodeHealth, PlacementFacts
from outgate.model.routing import OnUnassigned, Semantics, Stance
from outgate.plan.egress_nodes import digest, egress_nodes
from outgate.plan.placement import place
from outgate.plan.routing import DEFAULT
from outgate.roles.node_assist import Assisting
from outgate.sources.manifests import check as check_files
from outgate.systems.wire.announce import Announcer
from outgate.systems.wire.frames import Announcement

_CHOSEN = ("p11", "p21")
_TURNS = 20
_OWN = EgressRouting(name=DEFAULT, stance=Stance.OWN, semantics=Semantics.AUTO, on_unassigned=OnUnassigned.DROP)


@dataclass(slots=True)
class _Cluster:
    """What the API server would show, and what goes on beside it."""

    lab: OvnLaboratory
    intent: Intent
    told: dict[str, EgressNode] = field(default_factory=dict)

    def decide(self, health: Mapping[str, NodeHealth], screen: Screen) -> None:
        """Assign as the cluster role does, and say what moves and why."""
        facts = PlacementFacts(health=MappingProxyType(dict(health)), moves_left=len(self.intent.egress_ips))
        placed = place(self.intent, facts)
        for move in placed.moves:
            screen.say(str(move))
        placed_ips = tuple(replace(one, assigned=placed.items[one.name]) for one in self.intent.egress_ips)
        self.intent = replace(self.intent, egress_ips=placed_ips)

    def settle(self, *alive: str) -> None:
        """Let nodes do what they are told, and say so, until nobody is told anything new."""
        for _ in range(_TURNS):
            nodes = egress_nodes(replace(self.intent, egress_nodes=tuple(self.told.values())))
            self.told = {
                name: replace(one, programmed=self.told[name].programmed if name in self.told else "")
                for name, one in nodes.items()
            }
            behind = [name for name in alive if name in self.told and not _is_done(self.told[name])]
            if not behind:
                return
            for name in behind:
                self._work(name)

    def _work(self, name: str) -> None:
        own = next(one for one in self.intent.nodes if one.name == name)
        programs = self.lab.node(name).programs
        with self.lab.node(name).net.inside(), contextlib.closing(Assisting(f"unix:{programs.northbound}")) as role:
            if role.round(own, self.told[name], self.intent.nodes).is_done:
                self.told[name] = replace(self.told[name], programmed=digest(self.told[name]))
            self._announce(name)
        self.lab.settle()

    def _announce(self, name: str) -> None:
        """Tell the LAN what is on a node now, as its role does."""
        mac = Mac(mac_of(self.lab.node(name).at.primary[0]))
        held = (one.address for one in self.told[name].assignments)
        with contextlib.closing(Announcer()) as announcer:
            announcer.send([Announcement(link=LinkName(BRIDGE), address=one, mac=mac) for one in held])


def _is_done(node: EgressNode) -> bool:
    return node.programmed == digest(node)


def own(screen: Screen) -> list[str]:
    """Play it; return the sentences that did not hold."""
    failures: list[str] = []

    def check(holds: bool, text: str) -> None:
        screen.verdict(holds, text)
        failures.extend([] if holds else [text])

    screen.title("5. OVN-Kubernetes' EgressIP feature is off: outgate assigns, translates, hands over (stance own)")
    with OvnLaboratory(egress_ip=False) as lab:
        _ = (lab.server, lab.by_default)
        cluster = _Cluster(lab, _intent(lab))
        pods = [pod for pod in lab.pods if pod.name in _CHOSEN]
        cluster.decide({}, screen)
        cluster.settle("n1", "n2")
        seen = [pod.agent.fetch(OUTSIDE[family], timeout_s=5).source for pod in pods for family in (0, 1)]
        check(seen == [*PRIMARY_EGRESS] * 2, f"p11 and p21 are seen as {PRIMARY_EGRESS[0]} and {PRIMARY_EGRESS[1]}")

        dead = next(node for one in cluster.intent.egress_ips if one.name == "prod4" for node, _ in one.assigned)
        other = next(name for name in lab.nodes if name != dead)
        lab.node(dead).ip("link set eth0 down")
        screen.say(f"the uplink of {dead} goes down, and with it the node")
        cluster.decide({dead: NodeHealth(reachable=False)}, screen)
        cluster.settle(other)
        left = [pod for pod in pods if pod.node == other]
        seen = [pod.agent.fetch(OUTSIDE[family], timeout_s=5).source for pod in left for family in (0, 1)]
        check(seen == [*PRIMARY_EGRESS], f"the pod on {other} is seen as before, by {other}")
        strangers = set(lab.by_default.seen()) - {*PRIMARY_EGRESS}
        check(not strangers and not lab.by_default.leaked(CLUSTER), "nothing else was seen outside, from first to last")
    return failures


def _intent(lab: OvnLaboratory) -> Intent:
    every = objects.cluster(lab, local=False, chosen=_CHOSEN)
    every = [one for one in every if one["kind"] != "Network"]
    every += [objects.egress_ip(f"prod{one.version}", [one], {}) for one in PRIMARY_EGRESS]
    with tempfile.TemporaryDirectory(prefix="outgate-demo-") as place:
        objects.write(Path(place), every)
        return replace(check_files([Path(place)])[0], egress_routings=(_OWN,))
