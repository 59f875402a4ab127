"""People write manifests by hand, copy them from mails, and sometimes mean harm. All are told what is wrong, and where.

Every message names file, line, column and field, what was expected, and what to write; nothing hostile gets further.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.model.why import Finding
from outgate.sources.documents import parse
from outgate.sources.node import DEEPEST, Fault, Node, bare
from outgate.sources.tenant_fields import TENANT
from outgate.sources.validate import expected
from outgate.sources.yaml_reader import MOST_YAML_BYTES, read_yaml

SPEC = {"identity": {"nextHop": {"addresses": ["192.168.99.13"]}}, "egressIPs": ["192.168.55.113"]}


def tenant(**changes: object) -> str:
    spec = {name: value for name, value in {**SPEC, **changes}.items() if value is not None}
    manifest = {"apiVersion": "outgate.io/v1alpha1", "kind": "EgressTenant", "metadata": {"name": "ns-blue"}}
    return json.dumps({**manifest, "spec": spec})


def gateway(**changes: object) -> str:
    spec = {"inner": [{"interface": "enp1s0"}], "uplinks": ["enp7s0"], **changes}
    manifest = {"apiVersion": "outgate.io/v1alpha1", "kind": "EgressGateway", "metadata": {"name": "gw1"}}
    return json.dumps({**manifest, "spec": spec})


def pool(**changes: object) -> str:
    spec = {"ranges": ["192.168.55.120-192.168.55.139"], **changes}
    manifest = {"apiVersion": "outgate.io/v1alpha1", "kind": "EgressPool", "metadata": {"name": "lab"}}
    return json.dumps({**manifest, "spec": spec})


def only_finding(text: str, file: str = "a.yaml") -> Finding:
    parsed = parse(file, text.encode())
    assert not parsed.objects
    (broken,) = parsed.broken
    assert broken.finding.fix, "a finding says what to do"
    assert broken.finding.origin is not None
    assert broken.finding.origin.line > 0
    return broken.finding


def field_of(finding: Finding) -> str:
    return finding.origin.field if finding.origin else ""


def next_hop(**changes: object) -> dict[str, object]:
    return {"nextHop": {"addresses": ["192.168.99.13"], **changes}}


@pytest.mark.parametrize(
    ("text", "field", "wrong", "fix"),
    [
        (tenant(egressIPs=["10.0.0.010"]), "spec.egressIPs[0]", "leading zero", 'write "10.0.0.10"'),
        (tenant(egressIPs=["192.168.55.1/24"]), "spec.egressIPs[0]", "prefix length", 'write "192.168.55.1"'),
        (tenant(egressIPs=["::ffff:10.0.0.1"]), "spec.egressIPs[0]", "IPv4 address written as IPv6", '"10.0.0.1"'),
        (tenant(egressIPs=["fe80::1%eth0"]), "spec.egressIPs[0]", "zone", 'write "fe80::1"'),
        (tenant(egressIPs=["fe80::1"]), "spec.egressIPs[0]", "link-local", "can hold"),
        (tenant(egressIPs=["224.0.0.9"]), "spec.egressIPs[0]", "multicast", "can hold"),
        (tenant(egressIPs=["ff02::1"]), "spec.egressIPs[0]", "multicast", "can hold"),
        (tenant(egressIPs=["127.0.0.2"]), "spec.egressIPs[0]", "loopback", "can hold"),
        (tenant(egressIPs=["::1"]), "spec.egressIPs[0]", "loopback", "can hold"),
        (tenant(egressIPs=["::"]), "spec.egressIPs[0]", "unspecified", "can hold"),
        (tenant(egressIPs=["0.0.0.0"]), "spec.egressIPs[0]", "this network", "can hold"),
        (tenant(egressIPs=["255.255.255.255"]), "spec.egressIPs[0]", "broadcast", "can hold"),
        (tenant(egressIPs=["192.168.55.300"]), "spec.egressIPs[0]", "no IPv4 or IPv6 address", "as in"),
        (tenant(egressIPs=["10.0.0.1", "10.0.0.1"]), "spec.egressIPs[1]", "same as spec.egressIPs[0]", "keep one"),
        (tenant(egressIPs=["fd55::1", "FD55:0::1"]), "spec.egressIPs[1]", "same as spec.egressIPs[0]", "keep one"),
        (tenant(egressIPs="10.0.0.1"), "spec.egressIPs", "expected a list", '["10.0.0.1"]'),
        (tenant(egressIPs=[f"10.0.0.{n}" for n in range(1, 18)]), "spec.egressIPs", "at most 16 IPv4", "remove some"),
        (tenant(egressIPs=None), "spec", "exactly one of egressIPs and fromPool", "name the addresses"),
        (tenant(fromPool={"name": "lab"}), "spec", "exactly one of egressIPs and fromPool", "name the addresses"),
        (tenant(identity=None), "spec.identity", "identity is missing", "nextHop, source"),
        (tenant(identity={}), "spec.identity", "exactly one of nextHop and source; found none", "add one"),
        (tenant(identity=next_hop() | {"source": {}}), "spec.identity", "found both", "remove one"),
        (tenant(identity={"source": {}}), "spec.identity", "selects nobody", "add namespaceSelector"),
        (
            tenant(identity=next_hop(addresses=["10.0.0.1", "10.0.0.2"])),
            "spec.identity.nextHop.addresses",
            "at most 1 IPv4 address; found 2",
            "remove some",
        ),
        (tenant(identity=next_hop(addresses=[])), "spec.identity.nextHop.addresses", "expected 1 to 2 items", "add"),
        (tenant(identity=next_hop(addresses=["192.168.55.113"])), "spec.identity", "egress IP of the same", "inner"),
        (tenant(sourceCheck="pods"), "spec.sourceCheck", "no namespaces are selected", "add namespaceSelector"),
        (tenant(sourceCheck=False), "spec.sourceCheck", "found the boolean false", "expected"),
        (tenant(podSelector={"matchLabels": {"a": "b"}}), "spec.podSelector", "no namespaces", "namespaceSelector"),
        (tenant(namespaceSelector={}), "spec.namespaceSelector", "empty selector", "matchLabels"),
        (tenant(namespaceSelector={"matchLabels": {}}), "spec.namespaceSelector", "empty selector", "matchLabels"),
        (
            tenant(namespaceSelector={"matchLabels": {"a": 1}}),
            "spec.namespaceSelector.matchLabels[a]",
            "found the number 1",
            'quotes: "1"',
        ),
        (
            tenant(namespaceSelector={"matchExpressions": [{"key": "a", "operator": "In"}]}),
            "spec.namespaceSelector.matchExpressions[0].values",
            "In and NotIn need values",
            "add values",
        ),
        (
            tenant(namespaceSelector={"matchExpressions": [{"key": "a", "operator": "in", "values": ["b"]}]}),
            "spec.namespaceSelector.matchExpressions[0].operator",
            "expected one of In",
            "did you mean In?",
        ),
        (tenant(onChange="Flush"), "spec.onChange", "expected one of drain, flush", "did you mean flush?"),
        (tenant(egress_ips=[]), "spec.egress_ips", "no field egress_ips", "did you mean egressIPs?"),
        (tenant(nextHop="10.0.0.1"), "spec.nextHop", "no field nextHop here", "use one of"),
        (tenant(connections=0), "spec.connections", "from 1 to", "choose a number"),
        (tenant(connections="1000"), "spec.connections", "found the string", "without quotes: 1000"),
        (tenant(connections=True), "spec.connections", "found the boolean true", "plain number"),
        (tenant(connections=1.5), "spec.connections", "found the number 1.5", "plain number"),
        (tenant(rate={"bytesPerSecond": 10, "burstBytes": 1}), "spec.rate.burstBytes", "from 65536", "choose"),
        (tenant(rate={"bytesPerSecond": "2M"}), "spec.rate.bytesPerSecond", '"2M"', "plain number"),
        (tenant(rate={}), "spec.rate.bytesPerSecond", "missing", "bytes per second"),
        (tenant(quota={"bytes": 1, "period": "1 day"}), "spec.quota.period", "no duration", '"24h"'),
        (tenant(quota={"bytes": 1, "period": "30s"}), "spec.quota.period", "not from 1m to 366d", "in between"),
        (tenant(quota={"bytes": 1, "period": 24}), "spec.quota.period", "found the number 24", '"24h"'),
        (tenant(allowInbound=[{"protocol": "TCP"}]), "spec.allowInbound[0]", "needs a port", "ICMP none"),
        (tenant(allowInbound=[{"protocol": "ICMP", "port": 8}]), "spec.allowInbound[0]", "ICMP knows none", "port"),
        (tenant(allowInbound=[{"protocol": "TCP", "port": 65536}]), "spec.allowInbound[0].port", "65535", "choose"),
        (tenant(uplink=["enp7s0"]), "spec.uplink", "expected the name of a network interface", "expected"),
        (
            tenant(destinations=[{"cidrs": ["198.51.100.0/24"], "egressIPs": ["fd55::1"]}]),
            "spec.destinations[0].egressIPs",
            "other address families than its cidrs",
            "one egress IP",
        ),
        (
            tenant(destinations=[{"cidrs": ["198.51.100.7/24"], "egressIPs": ["192.168.55.2"]}]),
            "spec.destinations[0].cidrs[0]",
            "bits set behind its prefix length 24",
            '"198.51.100.0/24" for the prefix, or "198.51.100.7/32"',
        ),
        (
            tenant(destinations=[{"cidrs": ["10.0.0.0/8"], "egressIPs": [ip]} for ip in ("10.0.0.1", "10.0.0.2")]),
            "spec.destinations",
            "names a prefix twice",
            "one entry",
        ),
        (gateway(inner=[]), "spec.inner", "expected 1 to 8 items", "add"),
        (gateway(inner=[{"interface": "a"}] * 2), "spec.inner[1]", "same as spec.inner[0]", "keep one"),
        (
            gateway(inner=[{"interface": "a"}, {"interface": "a", "sharedNextHops": ["10.0.0.1"]}]),
            "spec.inner",
            "names a NIC twice",
            "one entry",
        ),
        (gateway(uplinks=["enp1s0"]), "spec.uplinks", "inner too", "of its own"),
        (gateway(uplinks=["eth0:1"]), "spec.uplinks[0]", 'contains ":"', "interface itself"),
        (gateway(uplinks=["og-12345678"]), "spec.uplinks[0]", "og-", "a NIC"),
        (gateway(uplinks=["all"]), "spec.uplinks[0]", "all links", "one interface"),
        (gateway(clusterNetworks=["10.128.0.0"]), "spec.clusterNetworks[0]", "no prefix length", "10.128.0.0/32"),
        (gateway(clusterNetworks=["10.0.0.0/255.0.0.0"]), "spec.clusterNetworks[0]", "dotted mask", "10.0.0.0/8"),
        (gateway(clusterNetworks=["10.0.0.0/33"]), "spec.clusterNetworks[0]", "from 0 to 32", "as in"),
        (gateway(bypass=["0.0.0.0/0"]), "spec.bypass[0]", "every address there is", "name the prefixes"),
        (gateway(bypass=["::ffff:0:0/96"]), "spec.bypass[0]", "IPv4 address written as IPv6", "0.0.0.0"),
        (
            gateway(internalDestinations=[{"cidr": "192.168.99.5/32", "interface": "enp7s0"}]),
            "spec.internalDestinations",
            "not inner",
            "spec.inner",
        ),
        (gateway(announce={"method": "BGP"}), "spec.announce.method", "expected one of Layer2, None", "use one of"),
        (gateway(announce={"probeIntervalMilliseconds": 0.3}), "spec.announce.probeIntervalMilliseconds", "0.3", "pl"),
        (pool(ranges=["10.0.0.9-10.0.0.1"]), "spec.ranges[0]", "ends before it begins", "10.0.0.1-10.0.0.9"),
        (pool(ranges=["10.0.0.1-fd00::1"]), "spec.ranges[0]", "other", "one range a family"),
        (pool(ranges=["10.0.0.1-10.0.0.999"]), "spec.ranges[0]", 'end "10.0.0.999"', "as in"),
        (pool(ranges=["126.0.0.0-128.0.0.0"]), "spec.ranges[0]", "127.0.0.0/8", "leave these"),
        (pool(ranges=["10.0.0.0/24", "10.0.0.9"]), "spec.ranges", "overlap", "once"),
        (pool(quarantine="31d"), "spec.quarantine", "not from 0s to 30d", "between"),
        (pool(allowedNamespaces={}), "spec.allowedNamespaces", "empty selector", "matchLabels"),
    ],
)
def test_a_wrong_value_is_refused_with_its_field_its_reason_and_a_cure(
    text: str, field: str, wrong: str, fix: str
) -> None:
    finding = only_finding(text)

    assert field_of(finding) == field
    assert wrong in finding.text
    assert fix in finding.fix


@pytest.mark.parametrize(
    "name",
    [
        'a";drop#x',
        "$(id)",
        "*",
        "x" * 254,
        "a\x1b[2Jb",
        "a\nb",
        "../../etc/passwd",
        "<script>",
        "",
        "-a",
        "A",
        "é",
        "a..b",
    ],
)
def test_a_hostile_name_is_refused_and_shown_harmlessly(name: str) -> None:
    manifest = json.loads(tenant()) | {"metadata": {"name": name}}
    finding = only_finding(json.dumps(manifest))

    assert field_of(finding) == "metadata.name"
    for shown in (str(finding.origin), finding.text, finding.about, finding.fix):
        assert shown.isprintable()
        assert len(shown) < 400


@pytest.mark.parametrize(
    "name", ['a";drop#x', "$(id)", "*", "eth*", "-oops", "`id`", "a'b", "{", "a b", "a\x00b", "..", "é", "x" * 253, ""]
)
def test_a_hostile_interface_name_is_refused_and_shown_harmlessly(name: str) -> None:
    finding = only_finding(gateway(uplinks=[name]))

    assert field_of(finding) == "spec.uplinks[0]"
    assert (str(finding.origin) + finding.text + finding.fix).isprintable()


def test_the_longest_name_there_may_be_is_taken() -> None:
    manifest = json.loads(tenant()) | {"metadata": {"name": ".".join(["a" * 60] * 4) + "." + "b" * 9}}
    assert len(manifest["metadata"]["name"]) == 253

    assert parse("a.yaml", json.dumps(manifest).encode()).broken == ()


def test_everything_that_is_wrong_is_told_at_once_in_the_order_of_the_file() -> None:
    text = "\n".join(
        [
            "apiVersion: outgate.io/v1alpha1",
            "kind: EgressTenant",
            "metadata: {name: ns-blue, namespace: x}",
            "spec:",
            "  sourcecheck: pods",
            "  egressIPs: [10.0.0.010]",
            "  identity: {nexthop: {}}",
        ]
    )

    origins = [one.finding.origin for one in parse("a.yaml", text.encode()).broken]

    assert [(one.line, one.column, one.field) for one in origins if one] == [
        (3, 27, "metadata.namespace"),
        (5, 3, "spec.sourcecheck"),
        (6, 15, "spec.egressIPs[0]"),
        (7, 14, "spec.identity.nexthop"),
    ]


@pytest.mark.parametrize(
    ("head", "wrong", "fix"),
    [
        ("apiVersion: outgate.io/v1beta1\nkind: EgressTenant", "expected apiVersion", "outgate.io/v1alpha1"),
        ("apiVersion: outgate/v1alpha1\nkind: EgressTenant", "expected apiVersion", "outgate.io/v1alpha1"),
        ("kind: EgressTenant", "found none", "write apiVersion"),
        ("apiVersion: outgate.io/v1alpha1\nkind: EgressTennant", "has no kind", "did you mean EgressTenant?"),
        ("apiVersion: outgate.io/v1alpha1\nkind: Zebra", "has no kind", "use one of: EgressGateway"),
        ("apiVersion: outgate.io/v1alpha1", "kind is missing", "add apiVersion and kind"),
        ("apiVersion: outgate.io/v1alpha1\nkind: EgressTenant\nstatus: {}", "spec is missing", "add spec"),
    ],
)
def test_an_object_that_says_wrongly_what_it_is_is_refused_and_not_passed_over(head: str, wrong: str, fix: str) -> None:
    finding = only_finding(f"{head}\nmetadata: {{name: ns-blue}}\n")

    assert wrong in finding.text
    assert fix in finding.fix


def test_a_field_beside_spec_is_sent_into_spec() -> None:
    finding = only_finding(tenant()[:-1] + ', "egressIPs": []}')

    assert (field_of(finding), finding.fix) == ("egressIPs", "put it under spec, as egressIPs")


@pytest.mark.parametrize(
    ("text", "line", "column", "wrong"),
    [
        ("a: 1\nb: &x [1]\nc: *x\n", 2, 4, "the anchor &x is refused"),
        ("a: *x\n", 1, 4, "the alias *x is refused"),
        ("a: 1\n\tb: 2\n", 2, 1, "a tab stands where YAML wants spaces"),
        ("a: 1\nb: 2\na: 3\n", 3, 1, "the key a stands here for the second time; the first is in line 1"),
        ("{a: 1, a: 2}", 1, 8, "for the second time"),
        ("a: 010\n", 1, 4, "kubectl"),
        ("a: !!binary eA==\n", 1, 4, "the tag !!binary is refused"),
        ("1: a\n", 1, 1, "the key 1 is not a string"),
        ("? [a]\n: b\n", 1, 3, "a key must be a string"),
        ("a: 'x\nb: c\n", 1, 4, "end of stream"),
        ("a: b: c\n", 1, 5, "not YAML"),
        ("a: \x07\n", 1, 4, "U+0007"),
        ("---\na: 1\n---\nb: [1\n", 4, 4, "not YAML"),
        ("a: " + "9" * 41, 1, 4, "too long for a number"),
        ("[" * 100_000, 1, DEEPEST + 1, "levels of nesting"),
        ("{a: " * 100_000, 1, 4 * DEEPEST + 1, "levels of nesting"),
    ],
)
def test_yaml_that_two_readers_would_read_in_two_ways_is_refused_in_its_place(
    text: str, line: int, column: int, wrong: str
) -> None:
    finding = [one.finding for one in parse("a.yaml", text.encode()).broken][-1]

    assert finding.origin is not None
    assert (finding.origin.line, finding.origin.column) == (line, column)
    assert wrong in finding.text
    assert finding.fix


@pytest.mark.parametrize(
    ("text", "line", "column", "wrong"),
    [
        ('{"a": 1,\n "a": 2}', 2, 2, "the key a stands here for the second time; the first is in line 1"),
        ('{"a": [1, 2,}', 1, 13, "not JSON"),
        ('{"a": tru}', 1, 8, "not JSON"),
        ('{"a"', 1, 5, "not JSON"),
        ("{} {}", 1, 5, "trailing characters"),
        ("", 1, 1, "not JSON"),
        ("[" * 100_000, 1, 1, "levels of nesting"),
        ('{"ä": ' + "[" * 70 + "]" * 70 + "}", 1, 7 + DEEPEST - 1, "levels of nesting"),
    ],
)
def test_broken_json_is_refused_in_its_place(text: str, line: int, column: int, wrong: str) -> None:
    finding = only_finding(text, "a.json")

    assert finding.origin is not None
    assert (finding.origin.line, finding.origin.column) == (line, column)
    assert wrong in finding.text


def test_a_bomb_of_anchors_is_refused_at_its_first_anchor() -> None:
    levels = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 30))

    finding = only_finding(f"l0: &l0 x\n{levels}\n")

    assert finding.text == "the anchor &l0 is refused"


def test_text_that_is_not_utf_8_is_refused_in_both_languages() -> None:
    for file in ("a.yaml", "a.json"):
        (broken,) = parse(file, b'{"a": "\xff"}' if file == "a.json" else b"a: 1\nb: \xff\n").broken
        assert "not UTF-8" in broken.finding.text


def test_a_byte_order_mark_is_no_content(tmp_path: Path) -> None:
    for file in ("a.yaml", "a.json"):
        assert parse(file, b"\xef\xbb\xbf" + tenant().encode()).broken == ()


def test_a_file_beyond_the_limit_is_refused_with_the_limit() -> None:
    finding = parse("a.yaml", b"#" * (MOST_YAML_BYTES + 1)).broken[0].finding

    assert finding.text == "the file is larger than 64 MiB, the limit for YAML"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("NO", "NO"),
        ("off", "off"),
        ("y", "y"),
        ("True", True),
        ("~", None),
        ("0o10", 8),
        ("0x1F", 31),
        ("-12", -12),
        ("1e3", 1000.0),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("2026-01-01", "2026-01-01"),
        ("10.0.0.1", "10.0.0.1"),
        ('"010"', "010"),
        ("'true'", "true"),
        ("<<", "<<"),
        ("=", "="),
    ],
)
def test_plain_words_are_what_the_core_schema_of_yaml_1_2_says(text: str, value: object) -> None:
    (node,) = read_yaml(f"a: {text}\n".encode())

    assert isinstance(node, Node)
    assert bare(node) == {"a": value}


def test_every_document_has_its_own_lines_whatever_stands_between(tmp_path: Path) -> None:
    text = "%YAML 1.2\n--- {a: 1}\n...\n# nothing\n---\n\n--- # note\nb: 2\n---\r\nc: |\n  text\n  --- not a marker\n"

    found = [(one.line, bare(one)) for one in read_yaml(text.encode()) if isinstance(one, Node)]

    assert found == [(2, {"a": 1}), (8, {"b": 2}), (10, {"c": "text\n--- not a marker\n"})]


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode), st.sampled_from(["a.yaml", "a.json"]))
def test_no_content_whatsoever_makes_the_reader_fail(content: bytes, file: str) -> None:
    for broken in parse(file, content).broken:
        assert isinstance(broken.finding, Finding)
        assert (broken.finding.text + broken.finding.fix).isprintable()


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=10)
)
NAMES = st.sampled_from([*SPEC, "nextHop", "addresses", "cidrs", "matchLabels", "fromPool", "name", "rate", "x"])
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
)


@given(st.sampled_from(["EgressGateway", "EgressTenant", "EgressPool", "Pod", "Node", "EgressIP"]), TREES, TREES)
def test_a_manifest_of_any_shape_is_an_object_or_is_refused_never_neither(
    kind: str, metadata: object, spec: object
) -> None:
    api_version = {"Pod": "v1", "Node": "v1", "EgressIP": "k8s.ovn.org/v1"}.get(kind, "outgate.io/v1alpha1")
    text = json.dumps({"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}, allow_nan=False)

    parsed = parse("a.json", text.encode())

    assert len(parsed.objects) == (0 if parsed.broken else 1)
    for broken in parsed.broken:
        assert (str(broken.finding.origin) + broken.finding.text + broken.finding.fix).isprintable()


def test_faults_carry_positions_only_within_their_file() -> None:
    text = "a: 1\n---\n]\n---\nb: 2\n"

    faults = [one for one in read_yaml(text.encode()) if isinstance(one, Fault)]

    assert [(one.line, one.column) for one in faults] == [(3, 1)]


def test_expectations_read_as_sentences() -> None:
    assert expected(TENANT.spec.fields[5].shape) == (
        "a list, each item an IPv4 or IPv6 address that a machine can hold, as in 192.168.55.113 or fd55::113"
    )
