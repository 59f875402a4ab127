"""What an engineer types at a gateway, and what he reads: exit codes, documents, live flows, metrics, wrong input."""

from __future__ import annotations

import json
import urllib.request

import yaml

from outgate.lab import addresses
from outgate.lab.manifests import egress_tenant
from tests.gateway.rig import Rig, until


def test_explain_says_for_every_pod_what_the_outside_sees(served: Rig) -> None:
    for pod in served.lab.pods:
        for version, target in ((4, addresses.OUTSIDE4), (6, addresses.OUTSIDE6)):
            said = served.outgate("explain", f"{pod.namespace}/{pod.name}", "--to", str(target))
            assert said.returncode == 0, said.stdout + said.stderr
            assert said.stdout.splitlines()[0].endswith(f"as {served.seen(pod, version)}")
            assert "kernel  " in said.stdout
            assert "agrees" in said.stdout


def test_explain_says_where_the_kernel_parts_from_the_plan(served: Rig) -> None:
    served.stop()
    served.lab.gw.run(["ip", "route", "del", "10.132.0.0/24", "metric", "111"])
    said = served.outgate("explain", "ns-blue/app-1", "--to", str(addresses.OUTSIDE4))
    assert said.returncode == 1
    assert "10.132.0.0/24" in said.stdout
    served.lab.gw.run(["nft", "flush", "ruleset"])
    said = served.outgate("explain", "ns-blue/app-1", "--to", str(addresses.OUTSIDE4))
    assert said.returncode == 1
    assert "prohibit" in said.stdout


def test_every_document_is_json_and_yaml_with_a_version_and_a_kind(served: Rig) -> None:
    for words, kind in (
        (("gateway", "plan"), "Plan"),
        (("gateway", "diff"), "Plan"),
        (("gateway", "status"), "Status"),
        (("explain", "ns-blue/app-1", "--to", str(addresses.OUTSIDE4)), "Explanation"),
        (("trace", "ns-blue/app-1", "--to", str(addresses.OUTSIDE4)), "Explanation"),
    ):
        for form, read in (("json", json.loads), ("yaml", yaml.safe_load)):
            document = read(served.outgate(*words, "-o", form).stdout)
            assert document["apiVersion"] == "outgate.io/v1alpha1"
            assert document["kind"] == kind


def test_plan_tells_changes_and_names_the_live_flows_that_they_would_end(served: Rig) -> None:
    blue = served.lab.tenants[0]
    pod = served.lab.pod("ns-blue")
    flow = pod.agent.hold(addresses.OUTSIDE4, interval_s=0.02)
    assert served.outgate("gateway", "plan").returncode == 0
    served.stop()
    served.manifests.put(egress_tenant(blue, egressIPs=["192.168.55.118", str(blue.egress6)], onChange="flush"))
    planned = served.outgate("gateway", "plan")
    assert planned.returncode == 1
    assert "192.168.55.118" in planned.stdout
    assert f"{pod.v4}:" in planned.stdout, "the flow by its source"
    assert str(addresses.OUTSIDE4) in planned.stdout
    flow.stop()


def test_plan_shows_what_apply_then_does(bare: Rig) -> None:
    bare.manifests.put_all(bare.lab)
    planned = json.loads(bare.outgate("gateway", "plan", "-o", "json").stdout)
    assert planned["changes"]
    applied = bare.outgate("gateway", "apply")
    assert applied.returncode == 0, applied.stdout + applied.stderr
    assert bare.outgate("gateway", "plan").returncode == 0
    assert bare.outgate("gateway", "diff").stdout == ""
    for pod in bare.lab.pods:
        assert bare.is_served(pod)
    assert bare.outgate("gateway", "flush", "--yes").returncode == 0
    assert bare.outgate("gateway", "plan").returncode == 1


def test_status_counts_what_was_stopped_and_what_passed(served: Rig) -> None:
    pod = served.lab.pod("ns-blue")
    pod.agent.fetch(addresses.OUTSIDE4, path="/bytes/100000")
    status = served.status()
    tenant = next(one for one in status["tenants"] if one["name"] == "ns-blue")
    assert tenant["receivedBytes"] > 100_000
    assert tenant["opened"] > 0
    assert served.outgate("gateway", "status").returncode == 0
    served.stop()
    stopped = served.outgate("gateway", "status")
    assert stopped.returncode == 2
    assert "systemctl start" in stopped.stderr


def test_metrics_are_served_on_loopback(served: Rig) -> None:
    with served.lab.gw.inside(), urllib.request.urlopen("http://127.0.0.1:9461/metrics", timeout=5) as answer:
        text = answer.read().decode()
    assert 'outgate_tenant_bytes_total{direction="sent",tenant="ns-blue"}' in text
    assert "outgate_drift_repaired_total" in text
    assert "10.132.0." not in text, "no pod's address is ever a label"


def test_a_broken_manifest_is_named_with_its_place_and_stops_only_itself(served: Rig) -> None:
    file = served.manifests.file("EgressTenant", "ns-red")
    file.write_text(file.read_text().replace("egressIPs:", "egressIps:"))
    until(
        lambda: any(f["reason"] == "InvalidManifest" for f in served.status().get("findings", ())),
        "the finding",
        diagnosis=served.diagnosis,
    )
    shown = served.outgate("gateway", "status").stdout
    assert "egresstenant-ns-red.yaml:" in shown
    assert "egressIPs" in shown, "the nearest valid name"
    served.wait_until_served()
    linted = served.lab.gw.run([*served.command("lint")[:4], str(file)], check=False)
    assert linted.returncode == 2
    assert "egressIPs" in linted.stdout


def test_there_is_no_colour_where_nobody_looks_or_wants_it(served: Rig) -> None:
    for words in (("gateway", "status"), ("explain", "ns-blue/app-1"), ("gateway", "plan")):
        assert "\x1b[" not in served.outgate(*words).stdout
