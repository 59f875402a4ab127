"""Two clusters share one gateway, and their objects have the same names. Each sees its own only."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

from outgate.model.intent import (
    ClusterNetwork,
    EgressGateway,
    EgressPool,
    EgressTenant,
    InnerInterface,
    Intent,
    Namespace,
    Node,
    NodeSubnet,
    Pod,
    PoolClaim,
    Served,
    SourceIdentity,
)
from outgate.model.ledger import Ledger
from outgate.model.net import LinkName, Prefix, Span
from outgate.model.selector import LabelSelector
from outgate.model.state import Facts, Moment, Snapshot
from outgate.model.why import Finding, Severity
from outgate.plan.allocate import allocate, pool_refusal
from outgate.plan.gateway import PlanMemory, plan_claims
from outgate.plan.selection import NamespaceIndex, select
from outgate.sources.kube.together import Together, cluster_of

MOMENT = Moment(now_s=0.0)
SERVED = Served(uid="1", generation=1, created="2026-01-01T00:00:00Z")


def cluster(subnet: str = "10.132.0.0/24", *, nic: str = "enp1s0", network: str = "10.132.0.0/14") -> Intent:
    selector = LabelSelector(match_labels=(("team", "red"),))
    return Intent(
        gateways=(
            EgressGateway(
                name="gw1",
                inner=(InnerInterface(interface=LinkName(nic)),),
                uplinks=(LinkName("enp7s0"),),
                served=SERVED,
            ),
        ),
        tenants=(
            EgressTenant(
                name="shop", identity=SourceIdentity(), namespace_selector=selector, claim=PoolClaim(pool="shared")
            ),
        ),
        pools=(
            EgressPool(
                name="shared",
                ranges=(Span(first=ip_address("192.0.2.1"), last=ip_address("192.0.2.9")),),
                allowed_namespaces=selector,
            ),
        ),
        nodes=(node("n1", subnet),),
        namespaces=(Namespace(name="ns", labels=(("team", "red"),)),),
        pods=(Pod(namespace="ns", name="app", node="n1", addresses=(ip_network(subnet)[5],)),),
        network=ClusterNetwork(cluster_networks=(ip_network(network),)),
    )


def node(name: str, *subnets: str) -> Node:
    return Node(name=name, subnets=tuple(NodeSubnet("default", ip_network(one), "spec.podCIDRs") for one in subnets))


def subnets(intent: Intent, name: str) -> list[Prefix]:
    return [subnet.prefix for one in intent.nodes if one.name == name for subnet in one.subnets]


EAST, WEST = cluster(), cluster("10.140.0.0/24", nic="enp9s0", network="10.140.0.0/14")


def test_a_tenant_selects_the_pods_of_its_own_cluster() -> None:
    both = Together().join({"east": EAST, "west": WEST})

    chosen = select(both.tenants, both.namespaces, both.pods)

    assert {name: [str(pod.addresses[0]) for pod in pods] for name, pods in chosen.pods.items()} == {
        "east.shop": ["10.132.0.5"],
        "west.shop": ["10.140.0.5"],
    }
    assert {pod.node for pod in both.pods} == {one.name for one in both.nodes} == {"east.n1", "west.n1"}
    assert cluster_of("west.a.dotted.name") == ("west", "a.dotted.name")


def test_a_pool_allows_the_namespaces_of_its_own_cluster() -> None:
    both = Together().join({"east": EAST, "west": WEST})
    pools = {one.name: one for one in both.pools}
    index = NamespaceIndex(both.namespaces)

    for tenant in both.tenants:
        assert tenant.claim is not None
        assert pool_refusal(tenant, pools[tenant.claim.pool], pools, index) is None
        stranger = next(pool for pool in both.pools if pool.name != tenant.claim.pool)
        assert pool_refusal(tenant, stranger, pools, index) is not None


def test_the_machine_is_as_the_first_cluster_says_and_protects_what_any_says() -> None:
    both = Together().join({"east": EAST, "west": WEST})

    (gateway,) = both.gateways
    assert [one.interface for one in gateway.inner] == ["enp1s0"]
    assert gateway.served_by == (("east", SERVED), ("west", SERVED))
    assert both.network is not None
    assert [str(one) for one in both.network.cluster_networks] == ["10.132.0.0/14", "10.140.0.0/14"]


def test_a_pod_range_of_both_stays_with_the_cluster_that_was_named_first() -> None:
    inside = replace(WEST, nodes=(node("n1", "10.132.0.0/25", "10.141.0.0/24"), node("n2", "10.132.0.128/25")))
    around = replace(WEST, nodes=(node("n1", "10.132.0.0/16"),))

    for other, lost in ((inside, ["Node/west.n1", "Node/west.n2"]), (around, ["Node/west.n1"])):
        both = Together().join({"east": EAST, "west": other})
        assert [(one.reason, one.about) for one in both.refusals] == [("ClustersOverlap", about) for about in lost]
        assert all("Node/east.n1" in one.text for one in both.refusals)
        assert subnets(both, "east.n1") == [ip_network("10.132.0.0/24")]
        assert ip_network("10.132.0.0/16") not in subnets(both, "west.n1")
    assert subnets(Together().join({"east": EAST, "west": inside}), "west.n1") == [ip_network("10.141.0.0/24")]
    first = Together().join({"west": inside, "east": EAST})
    assert [one.about for one in first.refusals] == ["Node/east.n1"]


def test_a_cluster_whose_pods_nobody_needs_takes_none_from_the_other() -> None:
    both = Together().join({"east": EAST, "west": replace(WEST, pods=(), pods_known=False)})
    facts = Facts()
    gateway = both.gateways[0]
    ledger, decided, _ = allocate(Snapshot(intent=both, facts=facts, ledger=Ledger(), gateway="gw1"), gateway, MOMENT)

    desired = plan_claims(
        Snapshot(intent=both, facts=facts, ledger=ledger, gateway="gw1"), decided, "digest", PlanMemory()
    )

    assert desired.pods == {"east.shop": 1}  # of the other one nothing is said


def test_what_did_not_change_keeps_its_very_value() -> None:
    together = Together()
    before = together.join({"east": EAST, "west": WEST})

    assert together.join({"east": EAST, "west": WEST}) is before
    after = together.join({"east": EAST, "west": replace(WEST, pods=())})
    assert after.tenants[0] is before.tenants[0]
    assert after.nodes[1] is before.nodes[1]
    assert [pod.node for pod in after.pods] == ["east.n1"]


def test_a_refusal_names_the_cluster_of_its_object() -> None:
    broken = Finding("InvalidManifest", "EgressTenant/shop", "is wrong", Severity.REFUSAL)
    silent = Finding("IntentFromDisk", "API server", "is away", Severity.WARNING)

    both = Together().join({"east": EAST, "west": replace(WEST, refusals=(broken, silent))})

    assert [one.about for one in both.refusals] == ["EgressTenant/west.shop", "west.API server"]
