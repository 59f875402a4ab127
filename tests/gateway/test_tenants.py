"""What a tenant may ask for, shown with packets: several egress IPs, its own ones per destination, sources, limits,
callers.
"""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Any

from outgate.lab import addresses
from outgate.lab.manifests import Manifest, egress_gateway, egress_pool, egress_tenant, namespace
from outgate.lab.outside import Server
from tests.gateway.rig import FAST, Rig, until

OUT = addresses.OUTSIDE4


def sources(rig: Rig, namespace_: str, target: addresses.Address = OUT) -> set[addresses.Address | None]:
    """Return as whom the pods of a namespace are seen."""
    pods = [pod for pod in rig.lab.pods if pod.namespace == namespace_]
    return {pod.agent.fetch(target, timeout_s=1.0).source for pod in pods}


def started(rig: Rig, *manifests: Manifest, **gateway: Any) -> Rig:
    """Write the cluster with these manifests instead of the picture's tenants, and start the daemon."""
    rig.manifests.put_cluster(rig.lab)
    rig.manifests.put(egress_gateway(**{**FAST, **gateway}))
    for manifest in manifests:
        rig.manifests.put(manifest)
    rig.start()
    return rig


def test_a_destination_can_have_an_egress_ip_of_its_own(bare: Rig) -> None:
    blue = bare.lab.tenants[0]
    special = [{"cidrs": ["203.0.113.0/24"], "egressIPs": ["192.168.55.115"]}]
    rig = started(bare, egress_tenant(blue, destinations=special))
    until(
        lambda: sources(rig, "ns-blue") == {ip_address("192.168.55.115")},
        "its own towards there",
        diagnosis=rig.diagnosis,
    )
    assert sources(rig, "ns-blue", addresses.SERVER4) == {blue.egress4}
    assert rig.leaked() == 0


def test_of_several_egress_ips_each_source_keeps_one_and_explain_knows_which(bare: Rig) -> None:
    blue = bare.lab.tenants[0]
    several = [f"192.168.55.{host}" for host in (113, 115, 116, 117)]
    for node in bare.lab.nodes.values():
        for number in range(6):
            node.add_pod("ns-blue", f"more-{node.name}-{number}")
    rig = started(bare, egress_tenant(blue, egressIPs=several))
    pods = [pod for pod in rig.lab.pods if pod.namespace == "ns-blue"]
    until(lambda: None not in sources(rig, "ns-blue"), "served", diagnosis=rig.diagnosis)
    seen = {pod.name + pod.node: {rig.seen(pod) for _ in range(3)} for pod in pods}
    assert all(len(each) == 1 for each in seen.values())
    assert len(set.union(*seen.values())) > 1
    for pod in pods[:4]:
        explained = rig.outgate("explain", f"ns-blue/{pod.name}", "--to", str(OUT)).stdout.splitlines()[0]
        assert explained.endswith(f"as {rig.seen(pod)}")


def test_a_tenant_can_be_told_by_its_pods_addresses_on_a_shared_next_hop(bare: Rig) -> None:
    blue = bare.lab.tenants[0]
    shared = {"inner": [{"interface": addresses.INNER_LINK, "sharedNextHops": ["192.168.99.19"]}]}
    rig = started(bare, egress_tenant(blue, identity={"source": {}}), **shared)
    rig.lab.steer("ns-blue", ip_address("192.168.99.19"))  # type: ignore[arg-type]
    rig.lab.steer("ns-red", ip_address("192.168.99.19"))  # type: ignore[arg-type]
    until(lambda: sources(rig, "ns-blue") == {blue.egress4}, "served by source", diagnosis=rig.diagnosis)
    assert sources(rig, "ns-red") == {None}, "a pod of nobody gets nowhere by the same next hop"
    new = rig.lab.nodes["n1"].add_pod("ns-blue", "late")
    assert rig.seen(new) is None, "fail closed until its pod object is known"
    rig.manifests.put_node(rig.lab.nodes["n1"])
    until(lambda: rig.seen(new) == blue.egress4, "the new pod is served")
    assert rig.leaked() == 0


def test_the_source_check_refuses_whom_the_tenant_does_not_select(bare: Rig) -> None:
    blue = bare.lab.tenants[0]
    rig = started(bare, egress_tenant(blue, sourceCheck="pods"))
    until(lambda: sources(rig, "ns-blue") == {blue.egress4}, "its pods pass", diagnosis=rig.diagnosis)
    rig.lab.steer("ns-red", blue.next_hop4, blue.next_hop6)
    assert sources(rig, "ns-red") == {None}, "a thief of the next hop does not"
    rig.manifests.put(egress_tenant(blue, sourceCheck="nodeSubnets"))
    until(lambda: sources(rig, "ns-red") == {blue.egress4}, "with nodeSubnets any pod of the cluster passes")
    assert rig.leaked() == 0


def test_a_caller_from_outside_reaches_an_egress_ip_only_where_the_tenant_allows_it(bare: Rig) -> None:
    blue = bare.lab.tenants[0]
    with Server(bare.lab.gw) as here:  # something of the machine's own, that listens on every address
        here.wait_until_ready()
        rig = started(bare, egress_tenant(blue))
        until(lambda: sources(rig, "ns-blue") == {blue.egress4}, "served", diagnosis=rig.diagnosis)
        for target in (blue.egress4, blue.egress6):
            assert rig.lab.outsider.fetch(target, timeout_s=3.0).error is not None
        assert rig.lab.outsider.fetch(addresses.UPLINK4).source is not None, "the machine's own address is as it was"
        rig.manifests.put(egress_tenant(blue, allowInbound=[{"protocol": "TCP", "port": 8080}, {"protocol": "ICMP"}]))
        until(lambda: rig.lab.outsider.fetch(blue.egress4).source is not None, "the listed port answers")
        assert rig.lab.outsider.fetch(blue.egress4, port=8081, timeout_s=3.0).error is not None
        rig.lab.ext.run(["ping", "-c1", "-W2", str(blue.egress4)])


def test_nobody_outside_reaches_a_pod_through_the_return_routes(served: Rig) -> None:
    served.lab.open_inbound()
    pod = served.lab.pod("ns-blue")
    with Server(pod.net) as inside:
        inside.wait_until_ready()
        for target in (pod.v4, pod.v6):
            assert served.lab.outsider.fetch(target, timeout_s=1.0).source is None
    assert served.leaked() == 0
    blocked = {one["counter"]: one["packets"] for one in served.status()["guard"]["blocked"]}
    assert blocked["inbound_dropped"] > 0


def test_an_internal_destination_is_reached_untranslated_and_no_other_on_the_inner_lan(bare: Rig) -> None:
    blue = bare.lab.tenants[0]
    for node in bare.lab.nodes.values():
        bare.lab.lan.run(["ip", "route", "add", str(node.addresses.pods4), "via", str(addresses.INNER4)])
    with Server(bare.lab.lan) as server:
        server.wait_until_ready()
        rig = started(bare, egress_tenant(blue))
        until(lambda: sources(rig, "ns-blue") == {blue.egress4}, "served", diagnosis=rig.diagnosis)
        assert sources(rig, "ns-blue", addresses.LAN_SERVER4) == {None}
        listed = [{"cidr": f"{addresses.LAN_SERVER4}/32", "interface": addresses.INNER_LINK}]
        rig.manifests.put(egress_gateway(internalDestinations=listed, **FAST))
        pods = {pod.v4 for pod in rig.lab.pods if pod.namespace == "ns-blue"}
        until(
            lambda: sources(rig, "ns-blue", addresses.LAN_SERVER4) == pods,
            "reached with the pod's own address",
            diagnosis=rig.diagnosis,
        )
        assert sources(rig, "ns-blue", addresses.LAN_ROUTER4) == {None}
    assert rig.leaked() == 0


def test_connections_beyond_the_limit_are_refused(bare: Rig) -> None:
    blue = bare.lab.tenants[0]
    rig = started(bare, egress_tenant(blue, connections=2))
    pod = rig.lab.pod("ns-blue")
    until(lambda: rig.seen(pod) == blue.egress4, "served", diagnosis=rig.diagnosis)
    rig.lab.gw.run(["conntrack", "-F"])
    held = [pod.agent.hold(OUT) for _ in range(2)]
    assert pod.agent.fetch(OUT, timeout_s=2.0).error is not None
    for flow in held:
        flow.stop()
    rig.lab.gw.run(["conntrack", "-F"])
    until(lambda: rig.seen(pod) == blue.egress4, "served again")


def test_a_rate_is_kept(bare: Rig) -> None:
    blue = bare.lab.tenants[0]
    rate = {"bytesPerSecond": 200_000, "burstBytes": 65_536}
    rig = started(bare, egress_tenant(blue, rate=rate))
    pod = rig.lab.pod("ns-blue")
    until(lambda: rig.seen(pod) == blue.egress4, "served", diagnosis=rig.diagnosis)
    big = 1_000_000
    limited = pod.agent.fetch(OUT, path=f"/bytes/{big}", timeout_s=20.0)
    assert limited.size >= big
    assert limited.ms > 1000 * (big - 65_536) / 200_000 / 2, "much slower than a LAN, near the rate"


def test_a_quota_stops_and_survives_a_table_that_is_loaded_anew(bare: Rig) -> None:
    blue = bare.lab.tenants[0]
    rig = started(bare, egress_tenant(blue, quota={"bytes": 100_000, "period": "1h"}))
    pod = rig.lab.pod("ns-blue")
    until(lambda: rig.seen(pod) == blue.egress4, "served", diagnosis=rig.diagnosis)
    pod.agent.fetch(OUT, path="/bytes/300000", timeout_s=2.0)
    assert rig.seen(pod) is None, "the budget is used up"
    rig.stop()
    rig.start()
    until(lambda: rig.status().get("health") == "OK", "back", diagnosis=rig.diagnosis)
    assert rig.seen(pod) is None
    assert sources(rig, "ns-red") == {None}, "nobody's"


def test_a_pool_gives_an_address_and_a_released_one_rests(bare: Rig) -> None:
    blue, red = bare.lab.tenants
    pool = egress_pool("lab", "192.168.55.120-192.168.55.121", quarantine="1h")
    from_pool: dict[str, Any] = {"egressIPs": None, "fromPool": {"name": "lab"}}
    rig = started(bare, pool, egress_tenant(blue, **from_pool))
    first = ip_address("192.168.55.120")
    until(lambda: sources(rig, "ns-blue") == {first}, "the lowest address of the pool", diagnosis=rig.diagnosis)
    rig.manifests.drop("EgressTenant", "ns-blue")
    rig.manifests.put(egress_tenant(red, **from_pool))
    until(
        lambda: sources(rig, "ns-red") == {ip_address("192.168.55.121")},
        "the released one is not given again",
        diagnosis=rig.diagnosis,
    )
    rig.manifests.put(egress_tenant(blue, **from_pool))
    until(lambda: sources(rig, "ns-blue") == {first}, "except to whom it belonged")
    assert rig.leaked() == 0


def test_with_drain_old_flows_keep_their_address_and_new_ones_get_the_new(served: Rig) -> None:
    blue = served.lab.tenants[0]
    pod = served.lab.pod("ns-blue")
    flow = pod.agent.hold(OUT, interval_s=0.01)
    served.manifests.put(egress_tenant(blue, egressIPs=["192.168.55.118", str(blue.egress6)], onChange="drain"))
    until(lambda: served.seen(pod) == ip_address("192.168.55.118"), "new flows", diagnosis=served.diagnosis)
    answered = flow.look().answered
    until(lambda: flow.look().answered > answered + 10, "the old flow lives on")
    assert set(flow.stop().sources) == {blue.egress4}
    until(lambda: "192.168.55.113/32" not in served.lab.gw.run(["ip", "addr"]).stdout, "then it is let go", 90.0)
    assert served.leaked() == 0


def test_with_flush_old_flows_are_told_at_once(served: Rig) -> None:
    blue = served.lab.tenants[0]
    pod = served.lab.pod("ns-blue")
    flow = pod.agent.hold(OUT, interval_s=0.01)
    served.manifests.put(egress_tenant(blue, egressIPs=["192.168.55.118", str(blue.egress6)], onChange="flush"))
    until(lambda: not flow.look().alive, "the client gets an error", diagnosis=served.diagnosis)
    assert flow.stop().errors
    until(lambda: served.seen(pod) == ip_address("192.168.55.118"), "new flows")
    assert served.leaked() == 0


def test_a_namespace_whose_labels_change_moves_with_its_pods(bare: Rig) -> None:
    blue = bare.lab.tenants[0]
    rig = started(
        bare,
        egress_tenant(blue, identity={"source": {}}, namespaceSelector={"matchLabels": {"egress": "blue"}}),
    )
    rig.lab.steer("ns-red", addresses.INNER4)
    until(lambda: rig.status().get("health"), "it runs", diagnosis=rig.diagnosis)
    assert sources(rig, "ns-red") == {None}
    rig.manifests.put(namespace("ns-red", egress="blue"))
    until(lambda: sources(rig, "ns-red") == {blue.egress4}, "selected by label", diagnosis=rig.diagnosis)
    rig.manifests.put(namespace("ns-red"))
    until(lambda: sources(rig, "ns-red") == {None}, "and no longer")
    assert rig.leaked() == 0


def test_apply_with_confirmation_goes_back_by_itself_also_across_a_restart(served: Rig, tmp_path: Path) -> None:
    blue = served.lab.tenants[0]
    pod = served.lab.pod("ns-blue")
    trial = tmp_path / "trial"
    trial.mkdir()
    for file in served.manifests.directory.glob("*.yaml"):
        (trial / file.name).write_text(file.read_text())
    changed = trial / "egresstenant-ns-blue.yaml"
    changed.write_text(changed.read_text().replace(str(blue.egress4), "192.168.55.119"))
    flow = pod.agent.hold(OUT, interval_s=0.02)
    words = ["-f", str(trial), "--state-dir", str(served.place / "state"), "--run-dir", str(served.place / "run")]
    command = [*served.command("gateway", "apply")[:5], *words, "--confirm-within", "4s"]
    served.lab.gw.run(command)
    assert served.seen(pod) == ip_address("192.168.55.119")
    assert served.status()["confirmation"] is not None
    served.kill()
    served.start()
    until(lambda: served.seen(pod) == blue.egress4, "rolled back", diagnosis=served.diagnosis)
    assert flow.stop().errors == {}, "a flow from before lives through both"
    served.lab.gw.run(command)
    served.lab.gw.run([*served.command("gateway", "confirm")])
    assert served.seen(pod) == ip_address("192.168.55.119")
    written = (served.manifests.directory / changed.name).read_text()
    assert "192.168.55.119" in written


def test_a_wider_cluster_network_replaces_ranges_that_overlap_it(bare: Rig) -> None:
    blue = bare.lab.tenants[0]
    rig = started(bare, egress_tenant(blue), clusterNetworks=["10.128.0.0/14"])
    rig.manifests.drop("Network", "cluster")
    until(lambda: sources(rig, "ns-blue") == {blue.egress4}, "served", diagnosis=rig.diagnosis)
    rig.manifests.put(egress_gateway(clusterNetworks=["10.128.0.0/13"], **FAST))
    shown = "10.128.0.0/13"
    until(
        lambda: shown in rig.lab.gw.run(["nft", "list", "set", "inet", "outgate", "protected4"]).stdout,
        "one wide range instead of several",
        diagnosis=rig.diagnosis,
    )
    assert sources(rig, "ns-blue") == {blue.egress4}
    until(lambda: rig.status()["rounds"]["left"] == 0, "nothing is left to do", diagnosis=rig.diagnosis)


def test_while_a_new_egress_ip_is_asked_about_the_old_one_serves(bare: Rig) -> None:
    blue = bare.lab.tenants[0]
    slow = {"announce": {"probes": 3, "probeIntervalMilliseconds": 1000}}
    rig = started(bare, egress_tenant(blue), **slow)
    pod = rig.lab.pod("ns-blue")
    until(lambda: rig.seen(pod) == blue.egress4, "served", diagnosis=rig.diagnosis)
    rig.manifests.put(egress_tenant(blue, egressIPs=["192.168.55.118"]))
    seen: list[addresses.Address | None] = []

    def changed() -> bool:
        seen.append(rig.seen(pod, timeout_s=0.5))
        return seen[-1] == ip_address("192.168.55.118")

    until(changed, "the new one serves", diagnosis=rig.diagnosis)
    assert set(seen) == {blue.egress4, ip_address("192.168.55.118")}, "and never nobody in between"
