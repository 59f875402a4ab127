"""What became of egress IPs, told once each, by what nodes were told and what EgressIPs say."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
import yaml

from outgate.model.intent import Assignment, EgressIP, EgressNode, EgressRouting, Intent, Node
from outgate.model.placement import Move
from outgate.model.selector import LabelSelector
from outgate.plan.history import recorded, seen_moves
from outgate.report.egress_list import history_text
from outgate.sources.history import read_history
from outgate.sources.kube.kinds import HISTORY
from outgate.sources.kube.objects import ObjectReader

ADDRESS = ip_address("10.10.10.100")
PROD = EgressIP(
    name="prod",
    egress_ips=(ADDRESS,),
    namespace_selector=LabelSelector(match_labels=(("team", "red"),)),
    assigned=(("n2", ADDRESS),),
)
NODES = (Node(name="n1", ready=False), Node(name="n2"))
BEFORE = EgressNode(name="n1", assignments=(Assignment(egress_ip="prod", address=ADDRESS, pods=()),))


def test_a_move_that_ovn_kubernetes_made_is_seen_with_what_is_amiss_with_the_old_node() -> None:
    (move,) = seen_moves(Intent(nodes=NODES, egress_ips=(PROD,), egress_nodes=(BEFORE,)))

    assert (move.from_node, move.to_node) == ("n1", "n2")
    assert "it is not ready" in move.reason
    assert "n1" in move.reason


def test_a_first_assignment_and_a_deletion_are_moves_from_and_to_no_node() -> None:
    (first,) = seen_moves(Intent(nodes=NODES, egress_ips=(PROD,)))
    (last,) = seen_moves(Intent(nodes=NODES, egress_nodes=(BEFORE,)))

    assert (first.from_node, first.to_node, first.reason) == ("", "n2", "OVN-Kubernetes assigned it")
    assert (last.from_node, last.to_node, last.reason) == ("n1", "", "the EgressIP is gone")


def test_what_stands_is_no_move() -> None:
    there = replace(BEFORE, name="n2")

    assert list(seen_moves(Intent(nodes=NODES, egress_ips=(PROD,), egress_nodes=(there,)))) == []


def test_a_move_is_kept_once_until_another_one_and_the_oldest_go() -> None:
    move = Move(egress_ip="prod", address=ADDRESS, from_node="n1", to_node="n2", reason="n1: it is not ready")
    back = replace(move, from_node="n2", to_node="n1", reason="the label is gone")

    kept = recorded((), [move], "2026-11-28T03:12:00Z")
    assert recorded(kept, [move], "2026-11-28T03:12:01Z") is kept
    told = recorded(kept, [back], "2026-11-28T03:20:00Z")
    assert [one.to_node for one in told] == ["n2", "n1"]
    for number in range(300):
        told = recorded(told, [move if number % 2 == 0 else back], f"{number}")
    assert len(told) == 256
    assert told[-1].at == "299"


def test_the_history_reads_as_a_table() -> None:
    move = Move(egress_ip="prod", address=ADDRESS, from_node="", to_node="n2", reason="it had none")

    assert history_text(recorded((), [move], "2026-11-28T03:12:00Z")).splitlines() == [
        "TIME                  EGRESSIP  ADDRESS       FROM  TO  BECAUSE",
        "2026-11-28T03:12:00Z  prod      10.10.10.100  none  n2  it had none",
    ]
    assert history_text(()) == "nothing moved since the cluster role runs here"


WRITTEN = """
apiVersion: v1
kind: List
items:
- apiVersion: outgate.io/v1alpha1
  kind: EgressRouting
  metadata: {name: other}
  spec: {egressIPs: [prod], semantics: auto}
- apiVersion: outgate.io/v1alpha1
  kind: EgressRouting
  metadata: {name: default}
  spec: {semantics: auto}
  status:
    moves:
    - {time: "2026-11-28T03:12:00Z", egressIP: prod, address: 10.10.10.100, toNode: n1, reason: it had no node}
    - {time: "2026-11-28T03:20:00Z", egressIP: prod, address: 10.10.10.100, fromNode: n1, toNode: n2, reason: gone}
"""


def _told(*words: str) -> subprocess.CompletedProcess[str]:
    argv = (sys.executable, "-m", "outgate", "egressip", "history", *words)
    return subprocess.run(argv, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("place", "file"),
    [("", "routings.yaml"), ("must-gather", "image/cluster-scoped-resources/outgate.io/egressroutings/default.yaml")],
)
def test_the_history_is_told_from_files_and_from_a_must_gather(tmp_path: Path, place: str, file: str) -> None:
    written = tmp_path / place / file
    written.parent.mkdir(parents=True, exist_ok=True)
    written.write_text(WRITTEN)

    told = _told("-f", str(tmp_path / place))

    assert told.returncode == 0, told.stderr
    assert [line.split()[:5] for line in told.stdout.splitlines()[1:]] == [
        ["2026-11-28T03:12:00Z", "prod", "10.10.10.100", "none", "n1"],
        ["2026-11-28T03:20:00Z", "prod", "10.10.10.100", "n1", "n2"],
    ]


def test_without_a_history_and_with_a_broken_one_the_reason_is_told(tmp_path: Path) -> None:
    empty = _told("-f", str(tmp_path))
    assert empty.returncode == 2
    assert f"{tmp_path}: there is no EgressRouting `default`" in empty.stderr

    (tmp_path / "routings.yaml").write_text(WRITTEN.replace("10.10.10.100, toNode", "10.10.10.300, toNode"))
    broken = _told("-f", str(tmp_path))
    assert broken.returncode == 2
    assert "routings.yaml" in broken.stderr
    assert "status.moves" in broken.stderr
    assert "10.10.10.300" in broken.stderr


def test_a_server_and_a_file_tell_the_same_history(tmp_path: Path) -> None:
    (tmp_path / "routings.yaml").write_text(WRITTEN)
    (watched,) = HISTORY.always
    (_, default) = yaml.safe_load(WRITTEN)["items"]
    default["metadata"] |= {"uid": "u", "resourceVersion": "7", "generation": 1}

    page = ObjectReader(watched).page(json.dumps({"metadata": {"resourceVersion": "9"}, "items": [default]}).encode())

    ((_, entry),) = page.entries
    assert isinstance(entry.value, EgressRouting), entry
    assert entry.value.served is not None
    assert entry.value.served.standing is not None
    assert entry.value.served.standing.moves == read_history([tmp_path])
    assert len(entry.value.served.standing.moves) == 2
