"""Somebody writes names into manifests that are meant for a shell, a ruleset, a terminal or a path.

They are read as the daemon reads them, planned, and rendered as they would be written. Each ends in a refusal with its
place, or stays text that nothing obeys: in a ruleset stand only names of declared NICs and digests.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from outgate.compare.changes import changes
from outgate.model.intent import Intent
from outgate.model.ledger import Ledger
from outgate.model.net import LinkAddress, LinkSetting, Route, TenantLink, Via
from outgate.model.ruleset import Element
from outgate.model.state import Desired, Snapshot
from outgate.model.why import Finding, Severity
from outgate.plan.gateway import plan
from outgate.report.planned import Planned, planned_document, planned_text
from outgate.sources.manifests import check
from outgate.systems.nft import render
from tests.stories.cluster import DIGEST, ENP1S0, ENP7S0, MACHINE, desired

HOSTILE = (
    'a";drop#x',
    "$(id)",
    "`id`",
    "*",
    "eth*",
    "{ }",
    "@inner",
    "a'b",
    "a\\b",
    "a\nb",
    "a\r\x1b[2Jb",
    "a\x00b",
    "a\u202eb",
    "\u2028",
    "../../etc/passwd",
    "-oops",
    "%s{0}",
    "x" * 254,
    "",
)
LONGEST = ".".join(["a" * 60] * 4) + "." + "b" * 9  # 253 bytes, and a name that Kubernetes takes
NAME = "kubernetes.io/metadata.name"

Manifest = dict[str, Any]


def ours(kind: str, name: str, **spec: Any) -> Manifest:
    return {"apiVersion": "outgate.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def cluster_object(kind: str, name: str, **fields: Any) -> Manifest:
    metadata = {"name": name, **fields.pop("metadata", {})}
    return {"apiVersion": fields.pop("apiVersion", "v1"), "kind": kind, "metadata": metadata, **fields}


def picture() -> dict[str, Manifest]:
    """A small, sound gateway; every string in it is a place for somebody's name."""
    return {
        "gateway": ours("EgressGateway", "gw1", inner=[{"interface": "enp1s0"}], uplinks=["enp7s0"]),
        "pool": ours("EgressPool", "lab", ranges=["192.168.55.120-192.168.55.129"]),
        "blue": ours(
            "EgressTenant",
            "ns-blue",
            gateway="gw1",
            namespaceSelector={"matchLabels": {NAME: "ns-blue"}},
            identity={"nextHop": {"addresses": ["192.168.99.13"], "interface": "enp1s0"}},
            egressIPs=["192.168.55.113"],
            uplink="enp7s0",
        ),
        "red": ours(
            "EgressTenant",
            "ns-red",
            namespaceSelector={"matchExpressions": [{"key": NAME, "operator": "In", "values": ["ns-red"]}]},
            identity={"source": {}},
            fromPool={"name": "lab"},
        ),
        "namespace": cluster_object("Namespace", "ns-blue", metadata={"labels": {NAME: "ns-blue", "team": "a"}}),
        "other": cluster_object("Namespace", "ns-red", metadata={"labels": {NAME: "ns-red"}}),
        "node": cluster_object(
            "Node",
            "n1",
            metadata={"annotations": {"k8s.ovn.org/node-subnets": '{"default": "10.132.0.0/24"}'}},
            status={"addresses": [{"type": "InternalIP", "address": "192.168.99.21"}]},
        ),
        "pod": cluster_object(
            "Pod",
            "app-1",
            metadata={"namespace": "ns-red", "labels": {"app": "web"}},
            spec={"nodeName": "n1"},
            status={"phase": "Running", "podIP": "10.132.0.5", "podIPs": [{"ip": "10.132.0.5"}]},
        ),
        "route": cluster_object(
            "AdminPolicyBasedExternalRoute",
            "blue-route",
            apiVersion="k8s.ovn.org/v1",
            spec={
                "from": {"namespaceSelector": {"matchLabels": {NAME: "ns-blue"}}},
                "nextHops": {"static": [{"ip": "192.168.99.13"}]},
            },
        ),
    }


def put(*path: str | int) -> Callable[[dict[str, Manifest], str], None]:
    """A place in the picture where a hostile name can be written."""

    def write(into: dict[str, Any], name: str) -> None:
        place: Any = into
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = name

    return write


def network_name(into: dict[str, Manifest], name: str) -> None:
    """The name of a user-defined network stands in an annotation, as the key of a JSON text."""
    subnets = {"default": "10.132.0.0/24", name: "10.133.0.0/24"}
    into["node"]["metadata"]["annotations"] = {"k8s.ovn.org/node-subnets": json.dumps(subnets)}


def label(into: dict[str, Manifest], name: str) -> None:
    into["namespace"]["metadata"]["labels"][name] = name


PLACES: dict[str, Callable[[dict[str, Manifest], str], None]] = {
    "name of a tenant": put("blue", "metadata", "name"),
    "name of a gateway": put("gateway", "metadata", "name"),
    "name of a pool": put("pool", "metadata", "name"),
    "name of a node": put("node", "metadata", "name"),
    "name of a namespace": put("namespace", "metadata", "name"),
    "name of a pod": put("pod", "metadata", "name"),
    "namespace of a pod": put("pod", "metadata", "namespace"),
    "node of a pod": put("pod", "spec", "nodeName"),
    "name of an external route": put("route", "metadata", "name"),
    "name of a network": network_name,
    "label of a namespace": label,
    "kind": put("blue", "kind"),
    "apiVersion": put("blue", "apiVersion"),
    "inner interface": put("gateway", "spec", "inner", 0, "interface"),
    "uplink": put("gateway", "spec", "uplinks", 0),
    "interface of a next hop": put("blue", "spec", "identity", "nextHop", "interface"),
    "uplink of a tenant": put("blue", "spec", "uplink"),
    "gateway of a tenant": put("blue", "spec", "gateway"),
    "pool of a tenant": put("red", "spec", "fromPool", "name"),
    "value of a selector": put("blue", "spec", "namespaceSelector", "matchLabels", NAME),
    "key of an expression": put("red", "spec", "namespaceSelector", "matchExpressions", 0, "key"),
    "operator of an expression": put("red", "spec", "namespaceSelector", "matchExpressions", 0, "operator"),
    "egress IP": put("blue", "spec", "egressIPs", 0),
    "next hop": put("blue", "spec", "identity", "nextHop", "addresses", 0),
    "range of a pool": put("pool", "spec", "ranges", 0),
    "field of a tenant": lambda into, name: into["blue"]["spec"].update({name: name}),
    "unknown kind": lambda into, name: into.update(more=cluster_object(name, name)),
}


def read(folder: Path, written: dict[str, Manifest]) -> Intent:
    """Read the picture as the daemon does, from one file per object."""
    for part, manifest in written.items():
        (folder / f"{part}.json").write_text(json.dumps(manifest))
    return check([folder])[0]


def planned(intent: Intent) -> Desired:
    """What is wanted when every address that may be asked about is free."""
    if intent.find_gateway("") is not None:
        return desired(intent)
    return plan(Snapshot(intent=intent, facts=MACHINE, ledger=Ledger(), gateway=""), DIGEST)


def words_of(finding: Finding) -> Iterator[str]:
    yield from (finding.about, finding.text, finding.fix, str(finding.origin))


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("place", PLACES)
def test_a_hostile_name_is_refused_in_its_place_or_obeyed_by_nothing(place: str, name: str, tmp_path: Path) -> None:
    written = copy.deepcopy(picture())
    PLACES[place](written, name)
    intent = read(tmp_path, written)
    wanted = planned(intent)

    for finding in intent.refusals:
        assert finding.origin is not None
        assert finding.origin.file.startswith(str(tmp_path))
        assert finding.origin.line > 0
        assert finding.fix or finding.severity is not Severity.REFUSAL
        assert all(text.isprintable() and len(text) < 1000 for text in words_of(finding))
    assert_only_known_names_are_written(wanted)
    assert_nothing_is_obeyed_in_text(intent, wanted)


def assert_only_known_names_are_written(wanted: Desired) -> None:
    """Links that are written to are declared NICs or have digests for names; so are the strings of the ruleset."""
    nics, made = {ENP1S0, ENP7S0}, set[str]()
    for resource in wanted.wants:
        match resource:
            case TenantLink(name=link, parent=parent):
                assert parent in nics
                made.add(link)
            case LinkAddress(link=link) | Route(hop=Via(link=link)):
                assert link in nics or link.startswith("og-")
            case LinkSetting(link=link):
                assert link in {*nics, "all"}
            case Element() as element:
                names = {part for part in element.key if isinstance(part, str)}
                assert names <= {*nics, "tcp", "udp", "icmp", "ipv6-icmp"} or all(n.startswith("og-") for n in names)
                assert render.unfit(element) == ""
    assert all(len(link) == 11 and int(link.removeprefix("og-"), 16) >= 0 for link in made)


def assert_nothing_is_obeyed_in_text(intent: Intent, wanted: Desired) -> None:
    """What people see has no control characters but the line ends that it was laid out with; data is sound JSON."""
    shown = Planned(gateway="gw1", changes=changes(wanted.wants, frozenset()), desired=wanted)
    for line in planned_text(shown).split("\n"):
        assert line.isprintable(), line
    json.dumps(planned_document(shown))
    assert all(finding.text.isprintable() for finding in (*wanted.findings, *intent.refusals))


@pytest.mark.parametrize(
    "file", [name for name in HOSTILE if "/" not in name and "\0" not in name and 0 < len(name) < 250]
)
def test_a_hostile_file_name_is_read_like_any_other_and_shown_escaped(file: str, tmp_path: Path) -> None:
    for part, manifest in picture().items():
        (tmp_path / f"{part}{file}.yaml").write_text(json.dumps(manifest))
    broken = ours("EgressTenant", "broken", egressIPs=["nonsense"])
    (tmp_path / f"broken{file}.yaml").write_text(json.dumps(broken))
    intent = check([tmp_path])[0]
    assert [tenant.name for tenant in intent.tenants] == ["ns-blue", "ns-red"]
    assert intent.refusals
    assert all(text.isprintable() for finding in intent.refusals for text in words_of(finding))


def test_the_longest_names_are_tenants_with_devices_and_names_of_their_own(tmp_path: Path) -> None:
    written = picture()
    for number, ending in enumerate(("one", "two")):
        tenant = copy.deepcopy(written["blue"])
        tenant["metadata"]["name"] = LONGEST[:-3] + ending
        tenant["spec"]["identity"]["nextHop"]["addresses"] = [f"192.168.99.{15 + number}"]
        tenant["spec"]["egressIPs"] = [f"192.168.55.{115 + number}"]
        written[ending] = tenant
    wanted = desired(read(tmp_path, written))
    links = [resource for resource in wanted.wants if isinstance(resource, TenantLink)]
    assert len(links) == len({link.name for link in links}) == len({link.mac for link in links}) == 3
    assert len({link.alternative for link in links}) == 3
    assert all(len(link.alternative.encode()) <= 127 for link in links)
