"""The story of EgressIP: the same pods and destinations as OVN-Kubernetes routes today, and as the host's routes say.

Everything is real: OVN with a zone on each node, Open vSwitch in user space, the kernels of two nodes, and counters
outside that tell by which LAN and router a packet came, and as whom. What OVN-Kubernetes would program is programmed by
hand, as it does.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from outgate.demo.egress_own import own
from outgate.demo.screen import Screen
from outgate.lab.ovn import objects
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
    Address,
)
from outgate.lab.ovn.today import Assigned, Today
from outgate.lab.ovn.topology import NAMESPACE, OvnLaboratory, OvnPod
from outgate.model.egress_ip import ClusterView
from outgate.model.host_table import HostTables
from outgate.model.intent import Intent
from outgate.model.routing import Routing, Semantics
from outgate.plan.egress_explain import explain_pod
from outgate.plan.egress_nodes import egress_nodes
from outgate.roles.node_assist import Assisting
from outgate.sources.manifests import ManifestSource
from outgate.systems.kernel.tables import read_tables

_HEAD = ("pod", "node", "to", "seen as", "came by", "explained")
_CHOSEN = ("p11", "p21")
_LEGACY, _AUTO = Routing(), Routing(semantics=Semantics.AUTO)
_HONOURED = Routing(semantics=Semantics.AUTO, honor_host_routes=True)
_NOWHERE = "nowhere"


@dataclass(slots=True)
class Story:
    """One run of the demo: the laboratory, where its objects stand, and what failed so far."""

    lab: OvnLaboratory
    place: Path
    screen: Screen
    local: bool = True
    failures: list[str] = field(default_factory=list)

    @property
    def pods(self) -> tuple[OvnPod, ...]:
        """The pods that have an egress IP, on its node and on the other."""
        return tuple(pod for pod in self.lab.pods if pod.name in _CHOSEN)

    def check(self, holds: bool, text: str) -> None:
        """Say a sentence, and remember it if it is not true."""
        self.screen.verdict(holds, text)
        if not holds:
            self.failures.append(text)

    def intent(self, name: str, pair: Sequence[Address]) -> Intent:
        """Write the cluster's objects with one EgressIP, on n1, and read them as outgate would."""
        every = objects.cluster(self.lab, local=self.local, chosen=_CHOSEN)
        objects.write(self.place, [*every, objects.egress_ip(name, pair, dict.fromkeys(pair, "n1"))])
        with contextlib.closing(ManifestSource(self.place)) as source:
            return source.read()

    def host(self) -> HostTables:
        """Read the host of the egress node."""
        with self.lab.node("n1").net.inside():
            return read_tables()


def run(screen: Screen) -> int:
    """Run the demo and return its exit code: 0 when every sentence held."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="outgate-demo-") as place, OvnLaboratory(local=True) as lab:
        story = Story(lab, Path(place), screen)
        _ = (lab.server, lab.by_default, lab.by_other, lab.by_secondary)
        screen.title(
            "outgate demo: EgressIP in a cluster of two nodes with two NICs, on a real OVN, in network namespaces"
        )
        screen.say(
            f"laboratory up in {time.monotonic() - started:.2f} s; oracle: packet counters outside, by LAN and router"
        )
        for act in (_today, _auto, _shared, _secondary):
            act(story)
        leaked = sum(one.leaked(CLUSTER) for one in (lab.by_default, lab.by_other, lab.by_secondary))
        story.check(leaked == 0, f"packets with a pod's own address seen outside, from first to last: {leaked}")
        story.failures += own(screen)
        words = f"{len(story.failures)} of the sentences above failed" if story.failures else "every sentence held"
        screen.end(not story.failures, words, time.monotonic() - started)
        return 1 if story.failures else 0


def _today(story: Story) -> None:
    story.screen.title(
        "1. Local gateway mode, as OVN-Kubernetes routes today: the host's static route is not looked at"
    )
    node = story.lab.node("n1")
    node.ip(
        *(f"route add {to} via {hop} dev {SECONDARY_NIC}" for to, hop in zip(PARTNER, SECONDARY_ROUTER, strict=True))
    )
    story.screen.say(f"on n1: ip route add {PARTNER[0]} via {SECONDARY_ROUTER[0]} dev {SECONDARY_NIC}")
    Today(story.lab).assign_primary(Assigned(pair=PRIMARY_EGRESS, node="n1", pods=story.pods))
    seen = _table(story, story.intent("prod", PRIMARY_EGRESS), _LEGACY, (*OUTSIDE, *PARTNER))
    story.check(set(seen.values()) == {"the default router"}, "every packet took the default router, the partner's too")


def _auto(story: Story) -> None:
    story.screen.title(
        "2. The same with outgate assisting, semantics auto: the static route counts, the rest stays in OVN"
    )
    node, intent = story.lab.node("n1"), story.intent("prod", PRIMARY_EGRESS)
    flow = story.pods[1].agent.hold(PARTNER[0], interval_s=0.02)
    _assist(story, intent, _AUTO)
    seen = _table(story, intent, _AUTO, (*OUTSIDE, *PARTNER))
    ways = {(to in PARTNER, way) for (_, to), way in seen.items()}
    story.check(
        ways == {(False, "the default router"), (True, "the second NIC")},
        "the partner is reached by the second NIC, everything else by the default router, all as the egress IP",
    )
    ended = flow.stop()
    story.check(
        ended.alive and set(ended.sources) == {PRIMARY_EGRESS[0]},
        f"a flow that was open before lives on: {ended.answered} of {ended.sent} answered, always as the egress IP",
    )
    node.ip(*(f"route del {to} dev {SECONDARY_NIC}" for to in PARTNER))
    _assist(story, intent, _AUTO)
    seen = _table(story, intent, _AUTO, PARTNER)
    story.check(
        set(seen.values()) == {"the default router"}, "with the route gone, the partner is reached by default again"
    )


def _shared(story: Story) -> None:
    story.screen.title("3. Shared gateway mode, honorHostRoutes: the gateway router does what the host's route says")
    story.lab.set_mode(local=False)
    story.local = False
    node = story.lab.node("n1")
    routes = [f"route add {to} via {hop} dev {BRIDGE}" for to, hop in zip(PARTNER, OTHER_ROUTER, strict=True)]
    node.ip(*routes)
    story.screen.say(f"on n1: ip route add {PARTNER[0]} via {OTHER_ROUTER[0]} dev {BRIDGE}")
    intent = story.intent("prod", PRIMARY_EGRESS)
    _assist(story, intent, _HONOURED)
    seen = _table(story, intent, _HONOURED, PARTNER)
    story.check(
        set(seen.values()) == {"the other router"}, "the partner is reached by the other router, and all stays in OVN"
    )
    ordinary = next(pod for pod in story.lab.pods if pod.name not in _CHOSEN)
    source = ordinary.agent.fetch(PARTNER[0], timeout_s=5).source
    story.check(source == node.at.primary[0], f"a pod without an egress IP goes as before: seen as {source}, its node")
    with node.net.inside():
        taken = Assisting(f"unix:{node.programs.northbound}").flush()
    story.lab.settle()
    story.check(taken.converged, f"flush took back exactly what was added: {len(taken.changes.drop)} rows")
    Today(story.lab).withdraw_primary(Assigned(pair=PRIMARY_EGRESS, node="n1", pods=story.pods))
    node.ip(*(line.replace(" add ", " del ") for line in routes))


def _secondary(story: Story) -> None:
    story.screen.title("4. An egress IP on the second NIC: without a default route there, OVN-Kubernetes makes one up")
    today, node = Today(story.lab), story.lab.node("n1")
    today.assign_secondary(Assigned(pair=SECONDARY_EGRESS, node="n1", pods=story.pods))
    intent = story.intent("far", SECONDARY_EGRESS)
    seen = _table(story, intent, _LEGACY, (SECONDARY_ROUTER[0], OUTSIDE[0]))
    ways = {(to == OUTSIDE[0], way) for (_, to), way in seen.items()}
    story.check(ways == {(False, "the second NIC"), (True, _NOWHERE)}, "its LAN is reached, what lies beyond is not")
    found = explain_pod(_view(story, intent, _LEGACY), f"{NAMESPACE}/p11", OUTSIDE[0])
    advice = next((one for one in found.findings if one.reason == "NoDefaultRoute"), None)
    story.check(advice is not None, f"explain says so: {advice.sentence if advice is not None else 'nothing'}")
    story.screen.say("with outgate assisting, semantics auto:")
    _assist(story, intent, _AUTO)
    told = story.pods[0].agent.fetch(OUTSIDE[0], timeout_s=2)
    story.check(
        told.error == "EHOSTUNREACH", f"no default is made up: the pod is told at once ({told.error}, {told.ms:.0f} ms)"
    )
    node.ip(f"route add default via {SECONDARY_ROUTER[0]} dev {SECONDARY_NIC} metric 500")
    story.screen.say(f"on n1: ip route add default via {SECONDARY_ROUTER[0]} dev {SECONDARY_NIC} metric 500")
    _assist(story, intent, _AUTO)
    seen = _table(story, intent, _AUTO, (SECONDARY_ROUTER[0], OUTSIDE[0]))
    story.check(
        set(seen.values()) == {"the second NIC"}, "the new route counts at once: all is reached as the egress IP"
    )


def _assist(story: Story, intent: Intent, routing: Routing) -> None:
    """Let outgate do one round on n1, as its node role would."""
    node = story.lab.node("n1")
    own = next(one for one in intent.nodes if one.name == "n1")
    told = egress_nodes(intent)["n1"]
    work = replace(told, assignments=tuple(replace(one, routing=routing) for one in told.assignments))
    with node.net.inside():
        assisting = Assisting(f"unix:{node.programs.northbound}")
        with contextlib.closing(assisting):
            for finding in assisting.round(own, work).routes:
                story.screen.say(finding.sentence)
    story.lab.settle()


def _view(story: Story, intent: Intent, routing: Routing) -> ClusterView:
    return ClusterView(intent=intent, hosts={"n1": story.host()}, routing=routing)


def _table(
    story: Story, intent: Intent, routing: Routing, destinations: Sequence[Address]
) -> dict[tuple[str, Address], str]:
    """Fetch a page from each destination from each pod, print a line each, and return by which way packets came."""
    view = _view(story, intent, routing)
    rows, ways = [], {}
    for pod in story.pods:
        for to in destinations:
            before = _counts(story)
            source = pod.agent.fetch(to, timeout_s=2).source
            way = next((name for name, count in _counts(story).items() if count > before[name]), _NOWHERE)
            way = way if source is not None else _NOWHERE
            ways[pod.name, to] = way
            headline = explain_pod(view, f"{NAMESPACE}/{pod.name}", to).headline
            said = headline.partition(f" to {to}: ")[2].removeprefix("leaves n1 ").removesuffix(f" as {source}")
            rows.append((f"{NAMESPACE}/{pod.name}", pod.node, str(to), str(source), way, said))
            if source is not None and source not in (*PRIMARY_EGRESS, *SECONDARY_EGRESS):
                story.failures.append(f"{pod.name} was seen as {source}")
    story.screen.table(_HEAD, rows)
    return ways


def _counts(story: Story) -> dict[str, int]:
    lab = story.lab
    counters = {
        "the default router": lab.by_default,
        "the other router": lab.by_other,
        "the second NIC": lab.by_secondary,
    }
    return {
        name: sum(count for source, count in one.seen().items() if source in (*PRIMARY_EGRESS, *SECONDARY_EGRESS))
        for name, one in counters.items()
    }
