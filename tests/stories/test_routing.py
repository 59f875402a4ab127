"""How each EgressIP of a cluster is routed: the default, those that are named, and what contradicts."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import msgspec
import pytest

from outgate.model.inbound import InboundAllowance, Protocol
from outgate.model.intent import Assignment, EgressIP, EgressNode, EgressRouting, Intent, Served, Unread
from outgate.model.net import LinkName
from outgate.model.routing import DEFAULT_ROUTING, NicGateway, OnUnassigned, Semantics, SnatScope, Stance
from outgate.model.selector import LabelSelector
from outgate.plan.routing import DEFAULT, Routings, first_default
from outgate.sources.documents import parse
from outgate.sources.dump import dump, dump_work
from outgate.sources.kube.kinds import of_node
from outgate.sources.kube.objects import ObjectReader

PROD = EgressIP(
    name="prod",
    egress_ips=(ip_address("192.168.99.150"),),
    namespace_selector=LabelSelector(match_labels=(("a", "b"),)),
)
GATEWAY = NicGateway(link=LinkName("eth1"), router=ip_address("192.168.55.1"))
CANARY = EgressRouting(name="canary", egress_ips=("prod",), semantics=Semantics.AUTO, on_unassigned=OnUnassigned.DROP)
CLUSTER = EgressRouting(
    name=DEFAULT,
    semantics=Semantics.LEGACY,
    snat_scope=SnatScope.HOSTING_LINK,
    gateways=(GATEWAY,),
    stance=Stance.ASSIST,
)


def test_an_egress_ip_that_is_named_differs_from_the_default_in_what_is_said_and_in_nothing_else() -> None:
    found = Routings.of(Intent(egress_routings=(CANARY, CLUSTER)))

    assert found["other"] == found.default
    assert (found["other"].semantics, found["other"].snat_scope) == (Semantics.LEGACY, SnatScope.HOSTING_LINK)
    assert found["prod"] == replace(found.default, semantics=Semantics.AUTO, on_unassigned=OnUnassigned.DROP)
    assert found["prod"].gateways == (GATEWAY,)
    assert found.refusals == ()


def test_without_any_object_egress_ips_are_routed_as_today() -> None:
    assert Routings.of(Intent())["prod"] == DEFAULT_ROUTING
    assert DEFAULT_ROUTING.semantics is Semantics.LEGACY


def test_the_first_default_changes_nothing_where_there_is_an_egress_ip() -> None:
    there, empty = first_default(Intent(egress_ips=(PROD,))), first_default(Intent())

    assert there is not None
    assert empty is not None
    assert (there.name, there.semantics) == (DEFAULT, Semantics.LEGACY)
    assert (empty.name, empty.semantics) == (DEFAULT, Semantics.AUTO)
    assert first_default(Intent(egress_routings=(CLUSTER,))) is None
    broken = Unread(kind="EgressRouting", name=DEFAULT, served=Served(uid="u", generation=1, created=""))
    assert first_default(Intent(unread=(broken,))) is None


@pytest.mark.parametrize(
    ("objects", "about", "reason"),
    [
        ((replace(CLUSTER, egress_ips=("prod",), gateways=()),), "EgressRouting/default", "RoutingWithoutScope"),
        ((replace(CANARY, egress_ips=()),), "EgressRouting/canary", "RoutingWithoutScope"),
        ((CANARY, replace(CANARY, name="twin")), "EgressRouting/twin", "RoutingConflict"),
    ],
)
def test_what_contradicts_is_refused_and_the_rest_is_in_force(
    objects: tuple[EgressRouting, ...], about: str, reason: str
) -> None:
    found = Routings.of(Intent(egress_routings=objects))

    assert [(one.about, one.reason) for one in found.refusals] == [(about, reason)]
    assert found["prod"].semantics is (Semantics.AUTO if reason == "RoutingConflict" else Semantics.LEGACY)


def test_a_manifest_says_settings_and_those_of_all_are_refused_beside_names() -> None:
    text = """
apiVersion: outgate.io/v1alpha1
kind: EgressRouting
metadata: {name: canary}
spec: {egressIPs: [prod], semantics: auto, honorHostRoutes: true, allowInbound: [{protocol: TCP, port: 22}]}
"""
    (found,) = parse("a.yaml", text.encode()).objects["EgressRouting"]
    refused = parse("a.yaml", text.replace("semantics: auto", "stance: own").encode()).broken
    slip = parse("a.yaml", text.replace("true", '"yes"').encode()).broken

    assert isinstance(found, EgressRouting)
    assert (found.honor_host_routes, found.allow_inbound) == (True, (InboundAllowance(Protocol.TCP, 22),))
    assert dump(found)["spec"]["honorHostRoutes"] is True
    assert "the same for all EgressIPs" in refused[0].finding.text
    assert "expected true or false" in slip[0].finding.text


def test_a_node_is_told_how_its_egress_ips_are_routed_and_reads_just_that() -> None:
    routing = replace(
        DEFAULT_ROUTING,
        semantics=Semantics.AUTO,
        stance=Stance.OWN,
        honor_host_routes=True,
        allow_inbound=(InboundAllowance(Protocol.ICMP),),
        gateways=(GATEWAY,),
    )
    node = EgressNode(
        name="n1",
        stance=Stance.OWN,
        assignments=(Assignment(egress_ip="prod", address=PROD.egress_ips[0], pods=(), routing=routing),),
    )

    watched = next(one for one in of_node("n1").always if one.kind == "EgressNode")
    served = {
        "apiVersion": "outgate.io/v1alpha1",
        "kind": "EgressNode",
        "metadata": {"name": "n1", "uid": "u", "resourceVersion": "1"},
        "status": dump_work(node),
    }
    event = ObjectReader(watched).event(msgspec.json.encode({"type": "ADDED", "object": served}))

    assert event.entry is not None
    assert event.entry.value == node
