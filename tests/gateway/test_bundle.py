"""Somebody who is not at the gateway, and has no right there, asks a bundle, and is told what he would be told there.

Pods 10.132.0.0/14, egress IPs 192.168.55.113 and .114, outside 203.0.113.9. The bundle is asked outside of the
laboratory's namespaces, by a process that has no capability and can get none.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from outgate.lab import addresses
from outgate.lab.topology import Laboratory
from outgate.sources.bundle import Bundle
from tests.gateway.rig import Rig, until

CANARY = "hunter2"
EXPLAIN = ("explain", "ns-blue/app-1", "--to", str(addresses.OUTSIDE4))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A gateway with its daemon; each story leaves it as it found it."""
    with Laboratory() as lab:
        rig = Rig(lab, tmp_path_factory.mktemp("bundle"))
        rig.serve()
        yield rig


def elsewhere(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the command where it has no privilege, outside of the laboratory."""
    without = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--"]
    command = [*without, sys.executable, "-m", "outgate", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def taken(rig: Rig, name: str = "bundle.tar.gz", *, complete: bool = True) -> Path:
    """Take a bundle at the gateway."""
    path = rig.place / name
    done = rig.outgate("bundle", "-o", str(path))
    assert done.returncode == (0 if complete else 1), done.stdout + done.stderr
    return path


@pytest.fixture(scope="module")
def path(served: Rig) -> Path:
    """A bundle of the gateway while it serves."""
    return taken(served)


@pytest.mark.parametrize(
    "words",
    [
        EXPLAIN,
        ("explain", "ns-red/app-1", "--to", str(addresses.OUTSIDE6)),
        ("trace", "ns-blue/app-1", "--to", str(addresses.OUTSIDE4)),
        ("gateway", "plan"),
        ("gateway", "diff"),
        ("doctor",),
        ("doctor", "-o", "json"),
    ],
    ids=" ".join,
)
def test_a_bundle_answers_to_anybody_as_the_gateway_answers_to_root(
    served: Rig, path: Path, words: tuple[str, ...]
) -> None:
    there = served.outgate(*words)

    here = elsewhere(*words, "--from", str(path))

    assert (here.stdout, here.returncode) == (there.stdout, there.returncode), here.stderr
    assert here.stderr.startswith(f"from {path}: host ")


def test_the_document_of_an_answer_lacks_only_labels_that_no_selector_asks_for(served: Rig, path: Path) -> None:
    there = json.loads(served.outgate(*EXPLAIN, "-o", "json").stdout)

    here = json.loads(elsewhere(*EXPLAIN, "-o", "json", "--from", str(path)).stdout)

    assert there["subject"]["pod"].pop("labels") == [["app", "business-app"]]
    assert here["subject"]["pod"].pop("labels") == []
    assert dict(there["subject"]["node"].pop("labels"))["kubernetes.io/hostname"] == "n1"
    assert here["subject"]["node"].pop("labels") == []
    assert here == there


def test_without_a_bundle_the_same_person_learns_nothing() -> None:
    asked = elsewhere("explain", "ns-blue/app-1")

    assert asked.returncode == 2
    assert asked.stdout == ""


def test_the_status_of_a_bundle_is_that_of_its_moment(served: Rig) -> None:
    before = served.status()

    after = json.loads(elsewhere("gateway", "status", "-o", "json", "--from", str(taken(served))).stdout)

    passing = {"uptimeSeconds", "sources", "rounds", "guard", "tenants"}  # they hold ages and counts of packets
    assert {key: after[key] for key in after.keys() - passing} == {key: before[key] for key in before.keys() - passing}
    assert after["health"] == "OK"
    assert [tenant["egressIps"] for tenant in after["tenants"]] == [one["egressIps"] for one in before["tenants"]]


def test_a_bundle_holds_the_live_flows_and_the_whole_ruleset(served: Rig) -> None:
    pod = served.lab.pod("ns-blue")
    served.lab.gw.run(["nft", "add", "table", "ip", "theirs"], check=True)
    held = pod.agent.hold(addresses.OUTSIDE4, interval_s=0.02)

    bundle = Bundle.open(taken(served))

    held.stop()
    served.lab.gw.run(["nft", "delete", "table", "ip", "theirs"], check=True)
    assert bundle.flows is not None
    assert any(flow.original.src == pod.v4 and flow.reply.dst == served.expected(pod) for flow in bundle.flows)
    tables = [item["table"]["name"] for item in json.loads(bundle.ruleset)["nftables"] if "table" in item]
    assert set(tables) >= {"outgate", "theirs"}
    assert bundle.about.missing == {}


def test_taking_a_bundle_changes_nothing(served: Rig) -> None:
    def machine() -> list[str]:
        commands = (["ip", "-d", "addr"], ["ip", "rule"], ["ip", "route"], ["nft", "-s", "list", "ruleset"])
        state = (served.place / "state" / "gateway" / "state.json").read_text()
        return [*(served.lab.gw.run(command).stdout for command in commands), state]

    before = machine()
    taken(served)
    assert machine() == before


def test_no_secret_of_the_manifests_or_of_the_firewall_is_in_a_bundle(served: Rig) -> None:
    written = {
        "secret": f"apiVersion: v1\nkind: Secret\nmetadata: {{name: db}}\ndata: {{password: {CANARY}}}\n",
        "config": f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c}}\ndata: {{url: 'https://a:{CANARY}@b/'}}\n",
        "wrong": "apiVersion: outgate.io/v1alpha1\nkind: EgressTenant\nmetadata: {name: ns-green}\n"
        f"spec: {{egressIPs: [{CANARY}], {CANARY}: 1}}\n",
        "pod": "apiVersion: v1\nkind: Pod\n"
        f"metadata: {{name: job, namespace: ns-blue, annotations: {{a: {CANARY}}}, labels: {{b: {CANARY}}}}}\n"
        f"spec: {{nodeName: n1, containers: [{{name: c, env: [{{name: P, value: {CANARY}}}]}}]}}\n",
    }
    for name, text in written.items():
        (served.manifests.directory / f"{name}.yaml").write_text(text)
    for words in ("add table ip theirs", "add chain ip theirs c", f'add rule ip theirs c accept comment "{CANARY}"'):
        served.lab.gw.run(["nft", *words.split(" ", 5)], check=True)
    until(lambda: CANARY in json.dumps(served.status()), "the daemon complains, in the words of the file")

    path = taken(served, "redacted.tar.gz")

    for name in written:
        (served.manifests.directory / f"{name}.yaml").unlink()
    served.lab.gw.run(["nft", "delete", "table", "ip", "theirs"], check=True)
    content = gzip.decompress(path.read_bytes())
    assert CANARY.encode() not in content
    assert b"theirs" in content
    assert b"EgressTenant/ns-green" in content
    assert Bundle.open(path).about.left_out == {"Secret (v1)": 1, "ConfigMap (v1)": 1}
    until(lambda: CANARY not in json.dumps(served.status()), "the daemon is content again")


def test_a_bundle_of_a_broken_machine_says_what_the_kernel_holds(bare: Rig) -> None:
    bare.serve()
    bare.stop()
    bare.lab.gw.run(["ip", "route", "del", "10.132.0.0/24", "metric", "111"], check=True)
    bare.lab.gw.run(["ip", "route", "del", "10.132.1.0/24", "metric", "111"], check=True)

    without_route = taken(bare, "route.tar.gz", complete=False)
    there = bare.outgate(*EXPLAIN)
    bare.lab.gw.run(["nft", "flush", "ruleset"], check=True)
    without_table = taken(bare, "table.tar.gz", complete=False)

    here = elsewhere(*EXPLAIN, "--from", str(without_route))
    assert (here.stdout, here.returncode) == (there.stdout, 1)
    assert "answers are lost" in here.stdout.splitlines()[0]
    here = elsewhere(*EXPLAIN, "--from", str(without_table))
    assert here.returncode == 1
    assert "the table is missing" in here.stdout.splitlines()[0]
    assert "prohibit" in here.stdout
    assert elsewhere("doctor", "--from", str(without_table)).returncode == 2
    diff = elsewhere("gateway", "diff", "--from", str(without_table)).stdout
    assert "+ nft table inet outgate" in diff
    assert "+ 10.132.0.0/24 via 192.168.99.21" in diff
    assert Bundle.open(without_table).about.missing.keys() == {"status"}


def test_a_bundle_is_taken_also_where_next_to_nothing_can_be_read(bare: Rig) -> None:
    bare.manifests.directory.rmdir()

    done = bare.outgate("bundle", "-o", str(bare.place / "bundle.tar.gz"))

    assert done.returncode == 1
    assert "missing: intent: " in done.stdout
    assert "missing: status: no daemon answers" in done.stdout
    asked = elsewhere(*EXPLAIN, "--from", str(bare.place / "bundle.tar.gz"))
    assert asked.returncode == 2
    assert "the bundle holds no intent" in asked.stderr
