"""A command writes and removes manifests for those who like that better than an editor; both may use one directory."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.model.errors import IntentError
from outgate.sources.manifests import check
from outgate.sources.node import Node, bare
from outgate.sources.write import find_manifests, manifest_path, remove_manifest, write_manifest
from outgate.sources.yaml_reader import read_yaml
from outgate.sources.yaml_writer import to_yaml


def tenant(name: str, egress_ip: str = "192.168.55.113") -> dict[str, object]:
    return {
        "apiVersion": "outgate.io/v1alpha1",
        "kind": "EgressTenant",
        "metadata": {"name": name},
        "spec": {"identity": {"nextHop": {"addresses": ["192.168.99.13"]}}, "egressIPs": [egress_ip]},
    }


def test_an_object_is_written_read_replaced_and_removed(tmp_path: Path) -> None:
    folder = tmp_path / "manifests"

    path = write_manifest(folder, tenant("ns-blue"))
    assert path == folder / "egresstenant-ns-blue.yaml"
    assert (path.stat().st_mode & 0o777) == 0o644
    write_manifest(folder, tenant("ns-blue", "192.168.55.120"))
    intent, findings = check([folder])

    assert (str(intent.tenants[0].egress_ips[0]), findings) == ("192.168.55.120", ())
    assert remove_manifest(folder, "EgressTenant", "ns-blue") == path
    assert remove_manifest(folder, "EgressTenant", "ns-blue") is None
    assert list(folder.iterdir()) == []


def test_what_is_not_valid_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(IntentError, match=r"EgressTenant/ns-blue spec\.egressIPs\[0\] .*leading zero.*; write"):
        write_manifest(tmp_path, tenant("ns-blue", "192.168.55.010"))
    with pytest.raises(IntentError, match=r"no object name"):
        write_manifest(tmp_path, tenant("../evil"))
    with pytest.raises(IntentError, match="can not name a manifest"):
        remove_manifest(tmp_path, "EgressTenant", "../evil")

    assert list(tmp_path.iterdir()) == []


def test_what_somebody_wrote_by_hand_is_left_to_them(tmp_path: Path) -> None:
    by_hand = tmp_path / "tenants.yaml"
    by_hand.write_text(to_yaml(tenant("ns-red")) + "---\n" + to_yaml(tenant("ns-blue", "192.168.55.114")))
    before = by_hand.read_text()

    with pytest.raises(IntentError, match=rf"{by_hand}:1[0-9]:1 EgressTenant/ns-blue: stands in a file"):
        write_manifest(tmp_path, tenant("ns-blue"))
    with pytest.raises(IntentError, match="edit it there"):
        remove_manifest(tmp_path, "EgressTenant", "ns-blue")

    assert by_hand.read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["tenants.yaml"]
    assert [one.name for one in find_manifests(tmp_path, "EgressTenant", "ns-red")] == ["ns-red"]
    assert list(find_manifests(tmp_path / "missing", "EgressTenant", "ns-red")) == []


def test_the_longest_names_fit_and_differ(tmp_path: Path) -> None:
    names = [".".join(["a" * 60] * 4) + "." + letter * 9 for letter in "bc"]

    paths = {write_manifest(tmp_path, tenant(name)) for name in names}

    assert len(paths) == 2
    assert all(len(path.name) <= 255 for path in paths)
    assert [one.name for one in check([tmp_path])[0].tenants] == names
    assert manifest_path(tmp_path, "EgressTenant", names[0]) in paths


SCALARS = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=20,
)
TRAPS = [
    "NO",
    "off",
    "y",
    "null",
    "~",
    "",
    "010",
    "0o10",
    "1e3",
    ".5",
    "1_000",
    "a: b",
    "- a",
    "#",
    "*a",
    "a\nb",
    "\x85",
]


@given(VALUES | st.sampled_from(TRAPS) | st.lists(st.sampled_from(TRAPS)))
def test_what_is_written_as_yaml_reads_back_as_it_was(value: object) -> None:
    (node,) = read_yaml(to_yaml({"value": value}).encode())

    assert isinstance(node, Node)
    assert bare(node) == {"value": value}


def test_names_that_yaml_would_take_for_numbers_or_words_survive(tmp_path: Path) -> None:
    names = ["0o10", "1e3", "no", "null", "010", "0x1f", "y"]
    for number, name in enumerate(names):
        write_manifest(tmp_path, tenant(name, f"192.168.55.{number + 1}"))

    intent, findings = check([tmp_path])

    assert (sorted(one.name for one in intent.tenants), findings) == (sorted(names), ())


def test_only_plain_values_can_be_written() -> None:
    with pytest.raises(TypeError, match="set has no place"):
        to_yaml({"a": {1}})
