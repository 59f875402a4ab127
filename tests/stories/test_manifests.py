"""An engineer keeps the wishes for one gateway in a directory: tenants by hand, nodes and pods as kubectl printed them.

People save half a thought, misspell, write things twice and delete the wrong file; programs write while outgate reads.
A wish is taken as a whole or not at all, and nothing that was in force is lost by a slip.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path

import pytest

from outgate.model.errors import NotReady
from outgate.model.intent import Intent, Pod
from outgate.model.why import Finding, Origin, Severity
from outgate.sources.manifests import ManifestSource, check

GATEWAY = """
apiVersion: outgate.io/v1alpha1
kind: EgressGateway
metadata: {name: gw1}
spec:
  inner: [{interface: enp1s0}]
  uplinks: [enp7s0]
"""


def tenant(name: str, egress_ip: str = "192.168.55.113") -> str:
    last = egress_ip.rpartition(".")[2]
    return f"""
apiVersion: outgate.io/v1alpha1
kind: EgressTenant
metadata:
  name: {name}
spec:
  identity:
    nextHop: {{addresses: [192.168.99.{last}]}}
  egressIPs: [{egress_ip}]
"""


def pod(name: str, ip: str = "10.128.0.5") -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "ns-blue", "labels": {"app": "web"}, "managedFields": [{"x": 1}]},
        "spec": {"nodeName": "node-1", "containers": [{"name": "c"}]},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}, {"ip": "fd01::5"}]},
    }


def listing(*items: Mapping[str, object], kind: str = "List") -> str:
    return json.dumps({"apiVersion": "v1", "kind": kind, "items": items, "metadata": {"resourceVersion": ""}}, indent=1)


def tenant_names(intent: Intent) -> list[str]:
    return [one.name for one in intent.tenants]


def egress_ips(intent: Intent) -> dict[str, str]:
    return {one.name: ",".join(map(str, one.egress_ips)) for one in intent.tenants}


def refusals(intent: Intent) -> list[Finding]:
    return [one for one in intent.refusals if one.severity is Severity.REFUSAL]


def test_a_directory_of_yaml_and_json_becomes_one_sorted_intent(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(tenant("ns-red", "192.168.55.114") + "---" + tenant("ns-blue"))
    (tmp_path / "a.yml").write_text(GATEWAY)
    (tmp_path / "pods.json").write_text(listing(pod("app-1"), pod("app-0")))

    intent = ManifestSource(tmp_path).read()

    assert [one.name for one in intent.gateways] == ["gw1"]
    assert egress_ips(intent) == {"ns-blue": "192.168.55.113", "ns-red": "192.168.55.114"}
    assert [one.name for one in intent.pods] == ["app-0", "app-1"]
    assert intent.refusals == ()
    red = intent.tenants[1].origin
    assert (red.file, red.line, red.column, red.object) == (f"{tmp_path}/b.yaml", 2, 1, "EgressTenant/ns-red")


def test_hidden_and_temporary_files_and_directories_are_passed_over(tmp_path: Path) -> None:
    for name in (".b.yaml.swp", ".hidden.yaml", "b.yaml~", "b.yaml.tmp", "b.yaml.swp", "#b.yaml#", "README.md"):
        (tmp_path / name).write_text("\tthis is no YAML")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "a.yaml").write_text(GATEWAY)

    intent = ManifestSource(tmp_path).read()

    assert (len(intent.gateways), intent.refusals) == (1, ())


def test_one_file_is_a_source_too(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(tenant("ns-blue"))
    (tmp_path / "b.yaml").write_text(tenant("ns-red", "192.168.55.114"))

    assert tenant_names(ManifestSource(tmp_path / "a.yaml").read()) == ["ns-blue"]


def test_reading_again_gives_the_very_same_value_while_nothing_changed(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(tenant("ns-blue"))
    (tmp_path / "pods.json").write_text(listing(pod("app-0")))
    source = ManifestSource(tmp_path)
    first = source.read()

    assert source.read() is first

    (tmp_path / "a.yaml").write_text(tenant("ns-blue", "192.168.55.120"))
    second = source.read()
    assert egress_ips(second) == {"ns-blue": "192.168.55.120"}
    assert second.pods is first.pods


def test_a_broken_document_stops_only_itself(tmp_path: Path) -> None:
    broken = "\nkind: EgressTenant\nmetadata:\n  name: ns-b\nspec:\n\tidentity: {}\n"
    (tmp_path / "a.yaml").write_text(tenant("ns-a") + "---" + broken + "---" + tenant("ns-c", "192.168.55.115"))

    intent = ManifestSource(tmp_path).read()

    assert tenant_names(intent) == ["ns-a", "ns-c"]
    (finding,) = refusals(intent)
    assert (finding.reason, finding.about) == ("InvalidManifest", "EgressTenant/ns-b")
    assert finding.origin == Origin(file=f"{tmp_path}/a.yaml", line=15, column=1, kind="EgressTenant", name="ns-b")
    assert "a tab stands where YAML wants spaces" in finding.text


def test_an_object_that_becomes_invalid_stays_in_force_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(tenant("ns-blue"))
    source = ManifestSource(tmp_path)
    source.read()

    file.write_text(tenant("ns-blue", "192.168.55.0999"))
    intent = source.read()

    assert egress_ips(intent) == {"ns-blue": "192.168.55.113"}
    assert all("what was read before stays in force" in one.text for one in refusals(intent))
    assert {one.about for one in refusals(intent)} == {"EgressTenant/ns-blue"}

    file.write_text(tenant("ns-blue", "192.168.55.99"))
    assert (egress_ips(source.read()), source.read().refusals) == ({"ns-blue": "192.168.55.99"}, ())


def test_a_file_that_can_not_be_parsed_keeps_what_it_held_and_names_it(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(tenant("ns-blue") + "---" + tenant("ns-red", "192.168.55.114"))
    (tmp_path / "b.yaml").write_text(tenant("ns-other", "192.168.55.116"))
    source = ManifestSource(tmp_path)
    source.read()

    file.write_text("]" + tenant("ns-blue"))
    (tmp_path / "b.yaml").unlink()
    intent = source.read()

    assert tenant_names(intent) == ["ns-blue", "ns-red"]
    (finding,) = refusals(intent)
    assert (
        "what was read from this file before stays in force: EgressTenant/ns-blue, EgressTenant/ns-red" in finding.text
    )

    file.unlink()
    assert source.read() == Intent()


def test_a_misspelt_kind_is_no_deletion(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(tenant("ns-blue"))
    source = ManifestSource(tmp_path)
    source.read()

    file.write_text(tenant("ns-blue").replace("EgressTenant", "EgresTenant"))
    intent = source.read()

    assert tenant_names(intent) == ["ns-blue"]
    assert refusals(intent)[0].fix == "did you mean EgressTenant?"


def test_at_the_first_start_a_broken_object_has_nothing_to_stay(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(tenant("ns-blue", "192.168.55.0999"))

    intent = ManifestSource(tmp_path).read()

    assert intent.tenants == ()
    assert all("stays in force" not in one.text for one in refusals(intent))
    assert {one.about for one in refusals(intent)} == {"EgressTenant/ns-blue"}


def test_of_two_objects_with_one_name_the_first_stays_and_both_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(tenant("ns-blue"))
    (tmp_path / "b.yaml").write_text(tenant("ns-blue", "192.168.55.114"))

    intent = ManifestSource(tmp_path).read()

    assert egress_ips(intent) == {"ns-blue": "192.168.55.113"}
    (finding,) = refusals(intent)
    assert (finding.reason, finding.about) == ("DuplicateObject", "EgressTenant/ns-blue")
    assert f"{tmp_path}/a.yaml:2:1" in finding.text
    assert finding.origin is not None
    assert finding.origin.file == f"{tmp_path}/b.yaml"


def test_a_missing_directory_is_not_ready_and_not_empty(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match="missing: does not exist"):
        ManifestSource(tmp_path / "missing").read()


def test_a_link_that_leads_nowhere_or_in_circles_is_not_ready_and_named(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GATEWAY)
    (tmp_path / "b.yaml").symlink_to("nowhere")
    with pytest.raises(NotReady, match=r"b\.yaml: is listed but does not exist"):
        ManifestSource(tmp_path).read()

    (tmp_path / "b.yaml").unlink()
    (tmp_path / "b.yaml").symlink_to("b.yaml")
    with pytest.raises(NotReady, match=r"b\.yaml: can not be read"):
        ManifestSource(tmp_path).read()


def test_a_pipe_in_the_directory_does_not_hang_the_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.yaml")

    with pytest.raises(NotReady, match=r"a\.yaml: is no regular file"):
        ManifestSource(tmp_path).read()


def test_a_file_is_not_read_while_a_program_writes_to_it(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    both = tenant("ns-blue") + "---" + tenant("ns-red", "192.168.55.114")
    file.write_text(both)
    source = ManifestSource(tmp_path)
    first = source.read()

    with file.open("w") as half:
        half.write(tenant("ns-blue"))
        half.flush()
        (tmp_path / "new.yaml").write_text(GATEWAY)
        during = source.read()
        with pytest.raises(NotReady, match=r"a\.yaml: is being written"):
            ManifestSource(tmp_path).read()
    after = source.read()

    assert during.tenants is first.tenants
    assert [(one.reason, one.severity) for one in during.refusals] == [("FileBeingWritten", Severity.NOTE)]
    assert len(during.gateways) == 1
    assert (tenant_names(after), after.refusals) == (["ns-blue"], ())


def test_a_new_file_is_waited_for_until_it_is_whole(tmp_path: Path) -> None:
    source = ManifestSource(tmp_path)
    source.read()

    with (tmp_path / "a.yaml").open("w") as half:
        half.write(tenant("ns-blue")[:40])
        half.flush()
        during = source.read()
        half.write(tenant("ns-blue")[40:])

    assert (during.tenants, [one.reason for one in during.refusals]) == ((), ["FileBeingWritten"])
    assert tenant_names(source.read()) == ["ns-blue"]


def test_what_kubectl_prints_drops_in_as_yaml_and_as_json_with_the_same_result(tmp_path: Path) -> None:
    manifest: dict[str, object] = {
        "apiVersion": "outgate.io/v1alpha1",
        "kind": "EgressTenant",
        "metadata": {
            "name": "ns-blue",
            "uid": "6f0e",
            "resourceVersion": "77",
            "generation": 2,
            "creationTimestamp": "2026-11-20T10:00:00Z",
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
            "managedFields": [],
        },
        "spec": {
            "identity": {"source": {}},
            "namespaceSelector": {"matchLabels": {"team": "blue"}},
            "egressIPs": ["::5"],
        },
        "status": {"conditions": [{"type": "Accepted", "status": "True"}]},
    }
    items: list[dict[str, object]] = [
        manifest,
        pod("app-0"),
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns-blue"}},
    ]
    folders = [tmp_path / "json", tmp_path / "yaml", tmp_path / "flow"]
    for folder in folders:
        folder.mkdir()
    (folders[0] / "all.json").write_text(listing(*items))
    (folders[1] / "all.yaml").write_text(
        "apiVersion: v1\nitems:\n" + "".join(f"- {json.dumps(item)}\n" for item in items) + "kind: List\n"
    )
    (folders[2] / "all.yaml").write_text(listing(*items))  # JSON in a file that is called YAML

    intents = [ManifestSource(folder).read() for folder in folders]

    assert [one.refusals for one in intents] == [(), (), ()]
    assert intents[0] == intents[1] == intents[2]
    assert intents[0].tenants[0].origin.resource_version == "77"


def test_a_list_as_the_api_server_gives_it_needs_no_kind_in_its_items(tmp_path: Path) -> None:
    items = [{key: value for key, value in pod(name).items() if key not in ("kind", "apiVersion")} for name in "ab"]
    (tmp_path / "pods.json").write_text(listing(*items, kind="PodList"))
    (tmp_path / "more.yaml").write_text(listing({"metadata": {"name": "ns-blue"}}, kind="NamespaceList"))

    intent = ManifestSource(tmp_path).read()

    assert [one.name for one in intent.pods] == ["a", "b"]
    assert [one.name for one in intent.namespaces] == ["ns-blue"]
    assert intent.refusals == ()


def test_a_plain_list_of_objects_is_taken_in_both_languages(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([pod("app-0")]))
    (tmp_path / "b.yaml").write_text("- {apiVersion: v1, kind: Namespace, metadata: {name: ns-blue}}\n")

    intent = ManifestSource(tmp_path).read()

    assert (len(intent.pods), len(intent.namespaces), intent.refusals) == (1, 1, ())


def test_pods_are_the_same_whether_they_came_the_short_way_or_the_long_one(tmp_path: Path) -> None:
    (tmp_path / "short.json").write_text(listing(pod("app-0")))
    short = ManifestSource(tmp_path / "short.json").read().pods

    assert short == (
        Pod(
            namespace="ns-blue",
            name="app-0",
            node="node-1",
            addresses=(IPv4Address("10.128.0.5"), IPv6Address("fd01::5")),
            labels=(("app", "web"),),
        ),
    )
    assert short[0].origin == Origin(file=f"{tmp_path}/short.json", kind="Pod", namespace="ns-blue", name="app-0")
    (tmp_path / "long.yaml").write_text(json.dumps(pod("app-0")).replace('"app-0"', "app-0"))
    assert ManifestSource(tmp_path / "long.yaml").read().pods == short


def test_one_broken_pod_among_many_is_named_with_its_line_and_the_others_stay(tmp_path: Path) -> None:
    (tmp_path / "pods.json").write_text(listing(pod("app-0"), pod("app-1", "10.128.0.007"), pod("app-2")))

    intent = ManifestSource(tmp_path).read()

    assert [one.name for one in intent.pods] == ["app-0", "app-2"]
    (finding,) = refusals(intent)
    assert (finding.about, finding.text) == ("Pod/ns-blue/app-1", '"10.128.0.007" is no IP address')
    assert finding.origin is not None
    line = (tmp_path / "pods.json").read_text().splitlines()[finding.origin.line - 1]
    assert finding.origin.field == "status.podIPs"
    assert '"podIPs"' in line


def test_kinds_that_nobody_reads_are_noted_once_and_near_misses_named(tmp_path: Path) -> None:
    items = [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"c{number}"}} for number in range(3)]
    (tmp_path / "a.json").write_text(listing(*items, {"apiVersion": "v1", "kind": "Pods", "metadata": {"name": "x"}}))

    intent = ManifestSource(tmp_path).read()

    assert [(one.reason, one.severity, one.text, one.fix) for one in intent.refusals] == [
        ("KindIgnored", Severity.NOTE, "3 objects of the kind ConfigMap (v1): outgate does not read it", ""),
        ("KindIgnored", Severity.NOTE, "1 object of the kind Pods (v1): outgate does not read it", "did you mean Pod?"),
    ]


def test_kinds_of_others_with_our_names_are_theirs(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "apiVersion: egressgateway.spidernet.io/v1beta1\nkind: EgressGateway\nmetadata: {name: x}\n"
    )

    intent = ManifestSource(tmp_path).read()

    assert [one.reason for one in intent.refusals] == ["KindIgnored"]


def test_a_large_dump_is_mapped_and_ten_thousand_tenants_are_read(tmp_path: Path) -> None:
    padded = [pod(f"app-{number}") | {"padding": "x" * 3500} for number in range(5_000)]
    (tmp_path / "pods.json").write_text(listing(*padded))
    assert (tmp_path / "pods.json").stat().st_size > 16 << 20
    many = (tenant(f"t-{number}").replace("55.113", f"{number >> 8}.{number & 255}") for number in range(10_000))
    (tmp_path / "tenants.yaml").write_text("---".join(many).replace("[192.168.0.0]", "[192.168.200.1]"))

    intent, findings = check([tmp_path])

    assert (len(intent.pods), len(intent.tenants), findings) == (5_000, 10_000, ())


def test_thousands_of_broken_objects_do_not_drown_the_reader(tmp_path: Path) -> None:
    (tmp_path / "pods.json").write_text(listing(*(pod(f"app-{number}", "x") for number in range(300)), pod("good")))

    intent = ManifestSource(tmp_path).read()

    assert [one.name for one in intent.pods] == ["good"]
    assert len(intent.refusals) == 101
    assert intent.refusals[-1].text == "200 more places of this file can not be read"


def test_what_is_deleted_goes_while_something_else_is_broken(tmp_path: Path) -> None:
    for name, ip in (("ns-a", "192.168.55.1"), ("ns-b", "192.168.55.2")):
        (tmp_path / f"{name}.yaml").write_text(tenant(name, ip))
    source = ManifestSource(tmp_path)
    source.read()

    (tmp_path / "ns-a.yaml").write_text("}")
    (tmp_path / "ns-b.yaml").unlink()

    assert tenant_names(source.read()) == ["ns-a"]


def test_checking_paths_needs_no_gateway_and_watches_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(tenant("ns-blue"))
    (tmp_path / "b.yaml").write_text(tenant("ns-blue"))

    intent, findings = check([tmp_path / "a.txt", tmp_path])

    assert tenant_names(intent) == ["ns-blue"]
    assert [one.reason for one in findings] == ["DuplicateObject"]


def test_a_file_name_that_no_terminal_should_see_is_escaped(tmp_path: Path) -> None:
    (tmp_path / "a\x1b[31m\n.yaml").write_text("]")
    (tmp_path / os.fsdecode(b"b\xff.yaml")).write_text("]")

    _, findings = check([tmp_path])

    shown = [str(one.origin) for one in findings]
    assert all(text.isprintable() for text in shown), shown


def test_networks_of_the_nodes_are_kept_while_their_object_is_broken(tmp_path: Path) -> None:
    file = tmp_path / "node.yaml"
    text = "apiVersion: v1\nkind: Node\nmetadata: {name: node-1}\nspec: {podCIDRs: [10.128.0.0/24]}\n"
    file.write_text(text)
    source = ManifestSource(tmp_path)
    source.read()

    file.write_text(text.replace("/24", "/33"))
    (node,) = source.read().nodes

    assert [one.prefix for one in node.subnets] == [IPv4Network("10.128.0.0/24")]
