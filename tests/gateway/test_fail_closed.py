"""Each layer of the gateway is taken away in turn, under traffic, with nobody there to repair it: the daemon is dead.

What may happen: the pods get no answer. What must not: a packet with a pod's address outside, or a tenant's packet with
the address of another. Each case runs with the uplink's reverse-path filter off, strict and loose, over IPv4 and IPv6.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from outgate.lab import addresses
from outgate.lab.addresses import INNER_LINK, INNER_MAC, UPLINK
from outgate.lab.agent import Held
from outgate.lab.manifests import egress_gateway
from outgate.lab.node import Pod
from tests.gateway.rig import FAST, Rig, until

BLUE_PORT, RED_PORT = 5001, 5002  # of the echo outside: the port tells whose packet it was
PACKETS = 20


def identity_removed(rig: Rig) -> None:
    rig.lab.gw.run(["nft", "flush", "map", "inet", "outgate", "id_link"])


def translation_removed(rig: Rig) -> None:
    for version in (4, 6):
        rig.lab.gw.run(["nft", "flush", "map", "inet", "outgate", f"snat{version}"])


def egress_ip_removed(rig: Rig) -> None:
    for tenant in rig.lab.tenants:
        rig.lab.gw.run(["ip", "addr", "del", f"{tenant.egress4}/32", "dev", UPLINK])
        rig.lab.gw.run(["ip", "addr", "del", f"{tenant.egress6}/128", "dev", UPLINK])


def stale_neighbours(rig: Rig) -> None:
    for node in rig.lab.nodes.values():
        for tenant in rig.lab.tenants:
            node.poison(tenant.next_hop4, INNER_MAC)
            node.poison(tenant.next_hop6, INNER_MAC)


def rules_flushed(rig: Rig) -> None:
    rig.lab.gw.run(["nft", "flush", "table", "inet", "outgate"])


def ruleset_flushed(rig: Rig) -> None:
    rig.lab.gw.run(["nft", "flush", "ruleset"])


def policy_rules_removed(rig: Rig) -> None:
    rig.lab.gw.run(["ip", "rule", "flush", "protocol", "111"])
    rig.lab.gw.run(["ip", "-6", "rule", "flush", "protocol", "111"])


def default_route_by_the_inner_nic(rig: Rig) -> None:
    rig.lab.gw.run(["ip", "route", "replace", "default", "via", str(addresses.LAN_ROUTER4), "dev", INNER_LINK])
    rig.lab.gw.run(["ip", "-6", "route", "replace", "default", "via", str(addresses.LAN_ROUTER6), "dev", INNER_LINK])


def links_removed(rig: Rig) -> None:
    for link in tenant_links(rig):
        rig.lab.gw.run(["ip", "link", "del", link])


def return_routes_removed(rig: Rig) -> None:
    rig.lab.gw.run(["ip", "route", "flush", "protocol", "111"])
    rig.lab.gw.run(["ip", "-6", "route", "flush", "protocol", "111"])


def nothing_removed(rig: Rig) -> None:
    """Leave everything as it is: the gateway works without its daemon."""


CASES: dict[str, Callable[[Rig], None]] = {
    function.__name__: function
    for function in (
        nothing_removed,
        identity_removed,
        translation_removed,
        egress_ip_removed,
        stale_neighbours,
        rules_flushed,
        ruleset_flushed,
        policy_rules_removed,
        default_route_by_the_inner_nic,
        links_removed,
        return_routes_removed,
    )
}
SERVES = {"nothing_removed", "policy_rules_removed"}  # with these the pods go on being served


def tenant_links(rig: Rig) -> list[str]:
    names = rig.lab.gw.run(["ip", "-o", "link", "show", "type", "macvlan"]).stdout.splitlines()
    return [line.split(":")[1].strip().split("@")[0] for line in names]


@pytest.mark.parametrize("case", CASES)
def test_a_missing_layer_leaks_nothing_and_mixes_no_tenants(served: Rig, case: str) -> None:
    served.kill()
    before = served.leaked()
    CASES[case](served)
    for rp_filter in (0, 1, 2):
        served.sysctl(f"net/ipv4/conf/{UPLINK}/rp_filter", rp_filter)
        answers = send_from_everybody(served)
        assert served.leaked() - before == 0
        assert strangers(served) == {}
        assert served.lab.inner.leaked() == 0, "and nothing goes back where it came from"
        if case in SERVES:
            assert set(answers.values()) == {PACKETS}


def send_from_everybody(rig: Rig) -> dict[tuple[str, int], int]:
    """Send packets from every pod in both families, all at once, and return how many were answered."""

    def send(pod: Pod, target: addresses.Address) -> int:
        port = BLUE_PORT if pod.namespace == "ns-blue" else RED_PORT
        return pod.agent.udp(target, port=port, count=PACKETS, interval_s=0.002).answered

    asked = [(pod, target) for pod in rig.lab.pods for target in (addresses.OUTSIDE4, addresses.OUTSIDE6)]
    with ThreadPoolExecutor(len(asked)) as together:
        answers = list(together.map(lambda each: send(*each), asked))
    return {(f"{pod.namespace}/{pod.name}", target.version): n for (pod, target), n in zip(asked, answers, strict=True)}


def strangers(rig: Rig) -> dict[str, int]:
    """Return packets that were seen with an address that is not their tenant's, by address."""
    found: dict[str, int] = {}
    for tenant, port in zip(rig.lab.tenants, (BLUE_PORT, RED_PORT), strict=True):
        for address, packets in rig.lab.outside.seen_at(port).items():
            if address not in (tenant.egress4, tenant.egress6):
                found[f"{tenant.namespace} as {address}"] = packets
    return found


@pytest.mark.parametrize("rp_filter", [0, 1, 2])
def test_a_flow_older_than_the_gateway_does_not_keep_its_own_address(bare: Rig, rp_filter: int) -> None:
    rig = bare
    rig.sysctl(f"net/ipv4/conf/{UPLINK}/rp_filter", rp_filter)
    rig.lab.gw.run(["nft", "add", "table", "inet", "theirs"])
    rig.lab.gw.run(["nft", "add", "chain", "inet", "theirs", "track", "{ type filter hook forward priority 0; }"])
    rig.lab.gw.run(["nft", "add", "rule", "inet", "theirs", "track", "ct", "state", "new", "counter"])
    rig.lab.forward_plainly()
    pod = rig.lab.pod("ns-blue")
    for node in rig.lab.nodes.values():
        node.steer("ns-blue", addresses.INNER4, addresses.INNER6)
    flow = pod.agent.hold(addresses.OUTSIDE4, kind="udp", port=BLUE_PORT, interval_s=0.01)
    until(lambda: rig.lab.outside.leaked() > 5, "the flow leaves with the pod's own address, as plain routers do")
    rig.manifests.put_all(rig.lab)
    rig.manifests.put(egress_gateway(**FAST))
    rig.start()
    until(lambda: "outgate" in rig.lab.gw.run(["nft", "list", "tables"]).stdout, "the table stands")
    until(lambda: rig.status().get("health") is not None, "the daemon answers")
    rig.lab.outside.reset()
    rig.lab.uplink.reset()
    for node in rig.lab.nodes.values():
        node.steer("ns-blue", rig.lab.tenants[0].next_hop4, rig.lab.tenants[0].next_hop6)
    until(lambda: rig.expected(pod) in flow.look().sources, "the same socket is seen as its egress IP")
    flow.stop()
    assert rig.leaked() == 0


def test_a_pod_subnet_outside_the_declared_cluster_network_is_guarded_too(bare: Rig) -> None:
    rig = bare
    rig.manifests.put_all(rig.lab)
    rig.manifests.put(egress_gateway(clusterNetworks=["10.128.0.0/14"], **FAST))  # the mistake of many runbooks
    rig.manifests.drop("Network", "cluster")
    rig.serve(manifests=False)
    stale_neighbours(rig)
    before = rig.leaked()
    assert set(send_from_everybody(rig).values()) == {0}
    rig.kill()
    ruleset_flushed(rig)
    assert set(send_from_everybody(rig).values()) == {0}
    assert rig.leaked() - before == 0


def test_the_client_is_told_at_once_and_does_not_hang(served: Rig) -> None:
    stale_neighbours(served)
    pod = served.lab.pod("ns-blue")
    for target in (addresses.OUTSIDE4, addresses.OUTSIDE6):
        fetched = pod.agent.fetch(target, timeout_s=10.0)
        assert fetched.error in {"EHOSTUNREACH", "EACCES", "ECONNREFUSED", "EPERM"}
        assert fetched.ms < 5000


def has_more_answers(flow: Held, answered: int) -> bool:
    return flow.look().answered > answered


def test_a_table_that_somebody_edits_is_replaced_under_traffic_and_nothing_leaks(served: Rig) -> None:
    """The kernel swaps tables in one transaction; a packet that is between two hooks at that moment is dropped, as if
    lost on the wire. So the stream, which sends again, gets every answer, and no datagram is refused.
    """
    agent = served.lab.pod("ns-blue").agent
    datagrams = agent.hold(addresses.OUTSIDE4, kind="udp", port=BLUE_PORT, interval_s=0.002)
    stream = agent.hold(addresses.OUTSIDE4, interval_s=0.002)
    for _ in range(5):
        served.lab.gw.run(["nft", "add", "chain", "inet", "outgate", "stray"])
        until(
            lambda: "stray" not in served.lab.gw.run(["nft", "list", "table", "inet", "outgate"]).stdout,
            "the edited table is replaced",
        )
        until(partial(has_more_answers, datagrams, datagrams.look().answered), "datagrams are answered again")
        until(partial(has_more_answers, stream, stream.look().sent), "the stream has every answer so far")
    assert [flow.stop().errors for flow in (datagrams, stream)] == [{}, {}]
    assert served.leaked() == 0
    assert strangers(served) == {}
