"""Somebody sends a bundle to somebody else: no secret goes along, every answer does, and what comes may be hostile.

The manifests are those of a real cluster: Secrets, ConfigMaps, environments, annotations, tokens in URLs. Each holds a
canary, a word that must be nowhere in the bundle.
"""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import pytest

from outgate.cli.main import run
from outgate.model.errors import IntentError, NotReady, Refused
from outgate.model.firewall import Firewall, Variant
from outgate.model.flow import Endpoints, Flow
from outgate.model.host import Host
from outgate.model.intent import EgressIP, Intent, Node, Pod
from outgate.model.ledger import Ledger
from outgate.model.net import Route
from outgate.model.selector import LabelSelector
from outgate.model.state import Reading
from outgate.model.status import GuardStatus, Health, NodeStatus, Status, TenantState, TenantStatus
from outgate.model.why import Finding, Severity
from outgate.roles.bundle import save
from outgate.roles.options import GatewayOptions
from outgate.roles.sight import sight_of
from outgate.sources.archive import unpack
from outgate.sources.bundle import FORMAT, About, Bundle, write
from outgate.sources.manifests import ManifestSource, check
from outgate.sources.redact import redact_firewall, redact_intent, redact_kind, redact_ruleset, redact_status
from outgate.systems.host.journal import parse as parse_journal
from outgate.systems.iptables.save import parse as parse_rules
from tests.stories.cluster import CLUSTER, DIGEST, MACHINE, NOW_S, desired, probed

CANARY = "hunter2"

CLUSTER_DUMP = f"""
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Secret
  metadata: {{name: db, namespace: ns-blue}}
  data: {{password: {CANARY}}}
- apiVersion: v1
  kind: Secret
  metadata: {{name: db2, namespace: ns-blue}}
  stringData: {{{CANARY}: x}}
- apiVersion: v1
  kind: ConfigMap
  metadata: {{name: conf, namespace: ns-blue}}
  data: {{url: "https://user:{CANARY}@example.org/"}}
- apiVersion: v1
  kind: Namespace
  metadata:
    name: ns-blue
    labels: {{kubernetes.io/metadata.name: ns-blue, env: prod, note: {CANARY}}}
    annotations: {{owner: {CANARY}}}
- apiVersion: v1
  kind: Node
  metadata:
    name: n1
    labels: {{role: {CANARY}}}
    annotations:
      k8s.ovn.org/node-subnets: '{{"default": ["10.132.0.0/24", "fd01:0:0:1::/64"]}}'
      k8s.ovn.org/node-gateway-router-lrp-ifaddr: {CANARY}
  status: {{addresses: [{{type: InternalIP, address: 192.168.99.21}}, {{type: Hostname, address: {CANARY}}}]}}
- apiVersion: v1
  kind: Pod
  metadata:
    name: app-0
    namespace: ns-blue
    labels: {{app: shop, pod-template-hash: {CANARY}}}
    annotations:
      kubectl.kubernetes.io/last-applied-configuration: '{{"password": "{CANARY}"}}'
    managedFields: [{{manager: {CANARY}}}]
  spec:
    nodeName: n1
    containers:
    - name: app
      image: "example.org/{CANARY}"
      args: ["--token={CANARY}"]
      env: [{{name: PASSWORD, value: {CANARY}}}]
  status: {{phase: Running, message: {CANARY}, podIPs: [{{ip: 10.132.0.5}}]}}
- apiVersion: {CANARY}/v1
  kind: "{CANARY} of mine"
  metadata: {{name: {CANARY}}}
"""
OWN = f"""
# {CANARY}
apiVersion: outgate.io/v1alpha1
kind: EgressGateway
metadata: {{name: gw1, annotations: {{a: {CANARY}}}, labels: {{b: {CANARY}}}}}
spec: {{inner: [{{interface: enp1s0}}], uplinks: [enp7s0]}}
---
apiVersion: outgate.io/v1alpha1
kind: EgressTenant
metadata: {{name: ns-blue}}
spec:
  namespaceSelector: {{matchLabels: {{env: prod}}}}
  podSelector: {{matchExpressions: [{{key: app, operator: Exists}}]}}
  identity: {{nextHop: {{addresses: [192.168.99.13]}}}}
  egressIPs: [192.168.55.113]
"""
BROKEN = {
    "a value": f"spec: {{identity: {{source: {{}}}}, egressIPs: [{CANARY}]}}",
    "a number": "spec: {identity: {source: {}}, egressIPs: 20402}",
    "a field": f"spec: {{identity: {{source: {{}}}}, {CANARY}: 1}}",
    "a key": f"spec: {{identity: {{source: {{}}}}, 20402: {CANARY}}}",
    "an alias": f"spec: *{CANARY}",
    "a tag": f"spec: !{CANARY} x",
    "no YAML": f"spec: {{{CANARY}\n\t]",
}


def intent_of(tmp_path: Path, **files: str) -> tuple[Intent, ManifestSource]:
    """The intent of a directory with these files."""
    directory = tmp_path / "manifests"
    directory.mkdir()
    for name, text in files.items():
        (directory / f"{name}.yaml").write_text(text)
    source = ManifestSource(directory)
    return source.read(), source


def packed(bundle: Bundle) -> bytes:
    file = io.BytesIO()
    write(bundle, file)
    return file.getvalue()


def everything(bundle: Bundle) -> bytes:
    """All bytes of a bundle, unpacked."""
    return gzip.decompress(packed(bundle))


def test_labels_that_an_egress_ip_asks_for_go_along() -> None:
    labels = (("app", "shop"), ("zone", "dmz"), ("note", CANARY))
    asks = EgressIP(
        name="prod",
        egress_ips=(),
        namespace_selector=LabelSelector((("env", "prod"),)),
        pod_selector=LabelSelector((("app", "shop"),)),
        node_selector=LabelSelector((("zone", "dmz"),)),
    )
    pod = Pod(namespace="a", name="b", labels=labels)

    redacted = redact_intent(Intent(nodes=(Node(name="n1", labels=labels),), pods=(pod,), egress_ips=(asks,)))

    assert redacted.nodes[0].labels == redacted.pods[0].labels == labels[:2]


def test_secrets_of_the_cluster_never_get_into_a_bundle(tmp_path: Path) -> None:
    intent, source = intent_of(tmp_path, cluster=CLUSTER_DUMP, own=OWN)
    assert CANARY in str(intent), "the canaries are where outgate sees them"

    redacted = redact_intent(intent)
    left_out = {redact_kind(kind): count for kind, count in source.ignored().items()}
    bundle = Bundle(about=About(left_out=MappingProxyType(left_out)), intent=redacted)

    assert CANARY.encode() not in everything(bundle)
    assert left_out == {"Secret (v1)": 2, "ConfigMap (v1)": 1, "a kind that no cluster has": 1}
    assert "3 objects" not in str(redacted.refusals)
    assert {"2 objects of the kind Secret (v1): outgate does not read it"} <= {one.text for one in redacted.refusals}


@pytest.mark.parametrize("broken", BROKEN)
def test_the_words_of_a_refusal_are_left_out_and_the_place_is_kept(broken: str, tmp_path: Path) -> None:
    head = "apiVersion: outgate.io/v1alpha1\nkind: EgressTenant\nmetadata: {name: ns-red}\n"
    intent, _ = intent_of(tmp_path, own=OWN, red=head + BROKEN[broken] + "\n")
    (finding,) = (one for one in intent.refusals if one.reason == "InvalidManifest")

    (redacted,) = (one for one in redact_intent(intent).refusals if one.reason == "InvalidManifest")

    content = everything(Bundle(about=About(), intent=redact_intent(intent)))
    assert CANARY.encode() not in content
    assert b"20402" not in content
    assert redacted.about == finding.about == "EgressTenant/ns-red", "the tenant still keeps its numbers"
    assert finding.origin is not None
    assert redacted.origin is not None
    assert (redacted.origin.line, redacted.origin.column) == (finding.origin.line, finding.origin.column)


def test_free_text_of_firewall_rules_is_left_out_and_decisions_stay() -> None:
    listing = f"""*filter
:FORWARD ACCEPT [0:0]
-A FORWARD -s 10.132.0.0/24 -i enp1s0 -m comment --comment "for {CANARY} \\"only\\"" -j ACCEPT
-A FORWARD -m string --string "{CANARY}" --algo bm -j DROP
-A FORWARD -m mark --mark 0x100/0xff00 -j LOG --log-prefix "{CANARY} "
-A FORWARD -m comment --comment "odd {CANARY} -j DROP
COMMIT
"""
    rules = parse_rules(listing, version=4, variant=Variant.NFT).rules
    assert str(rules).count(CANARY) > 4

    redacted = redact_firewall(Firewall(rules=rules)).rules

    assert CANARY not in str(redacted)
    assert [rule.target for rule in redacted] == [rule.target for rule in rules]
    assert (redacted[0].src, redacted[0].incoming) == (rules[0].src, "enp1s0")
    assert redacted[0].line == "-A FORWARD -s 10.132.0.0/24 -i enp1s0 -m comment --comment ... -j ACCEPT"
    assert redacted[2].mark == rules[2].mark


def test_comments_and_log_prefixes_of_the_ruleset_are_left_out_and_prefixes_of_addresses_stay() -> None:
    prefix = {"prefix": {"addr": "10.0.0.0", "len": 8}}
    expressions = [{"match": {"op": "==", "left": {}, "right": prefix}}, {"log": {"prefix": CANARY, "level": "info"}}]
    listing = {"nftables": [{"rule": {"comment": CANARY, "expr": expressions}}, {"set": {"elem": [prefix]}}]}

    redacted = redact_ruleset(listing)

    assert CANARY not in str(redacted)
    assert str(redacted).count("10.0.0.0") == 2
    assert redacted["nftables"][0]["rule"]["expr"][1] == {"log": {"level": "info"}}


def test_the_status_of_the_daemon_repeats_no_words_of_a_refusal() -> None:
    finding = Finding("InvalidManifest", "Node/n1", f'found "{CANARY}"', Severity.REFUSAL, f"not {CANARY}")
    reason = f"InvalidManifest: {finding.text}"
    status = Status(
        gateway="gw1",
        version="0.1.0",
        health=Health.DEGRADED,
        uptime_s=1.0,
        guard=GuardStatus(table=True, rules=True),
        tenants=(TenantStatus(name="a", state=TenantState.REFUSED, reason=reason),),
        nodes=(NodeStatus(name="n1", ready=True, reason=reason), NodeStatus(name="n2", ready=True, reason="kept")),
        findings=(finding,),
    )

    redacted = redact_status(status)

    assert CANARY not in str(redacted)
    assert redacted.findings[0].about == ""
    assert redacted.nodes[1].reason == "kept"


def test_of_the_log_only_fields_that_have_a_name_are_taken() -> None:
    lines = [
        {"__REALTIME_TIMESTAMP": "1", "PRIORITY": "6", "OUTGATE_EVENT": "made", "OUTGATE_RESOURCE": "a route"},
        {"__REALTIME_TIMESTAMP": "2", "OUTGATE_EVENT": "surprise", "OUTGATE_ERROR": CANARY, "MESSAGE": CANARY},
        {"__REALTIME_TIMESTAMP": "3", "OUTGATE_EVENT": "round put off", "OUTGATE_ERROR": "nft is missing"},
        {"__REALTIME_TIMESTAMP": "4", "MESSAGE": f"Traceback {CANARY}"},
        {"OUTGATE_EVENT": [104, 105]},
    ]

    found = list(parse_journal([*map(msgspec.json.encode, lines), b'{"torn']))

    assert found == [
        {"time_us": "1", "priority": "6", "event": "made", "resource": "a route"},
        {"time_us": "2", "event": "surprise"},
        {"time_us": "3", "event": "round put off", "error": "nft is missing"},
    ]


def test_the_manifests_of_a_bundle_ask_for_the_same(tmp_path: Path) -> None:
    intent, _ = intent_of(tmp_path, cluster=CLUSTER_DUMP, own=OWN)
    asked = redact_intent(replace(intent, external_routes=CLUSTER.external_routes, network=CLUSTER.network))
    asked = replace(asked, nodes=(*asked.nodes, *CLUSTER.nodes[1:]), pods=(*asked.pods, *CLUSTER.pods[3:]))

    folder = tmp_path / "unpacked"
    folder.mkdir()
    for name, content in members(packed(Bundle(about=About(), intent=asked))):
        (folder / name.replace("/", "-")).write_bytes(content)
    read, findings = check(sorted(folder.glob("*manifests*")))

    assert findings == ()
    assert read == replace(asked, refusals=())


def members(content: bytes) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            yield member.name, file.read()


def taken(intent: Intent = CLUSTER, **parts: Any) -> Bundle:
    """A bundle of the machine of the stories, which serves."""
    ledger = probed(Ledger(), intent)
    given = {
        "intent": redact_intent(intent),
        "ledger": ledger,
        "reading": Reading(facts=MACHINE, actual=frozenset(desired(intent).wants)),
        "flows": (),
        "host": Host(kernel=(6, 18), nft=(1, 0, 6)),
        "firewall": Firewall(),
    }
    about = About(written_by="0.1.0", taken_s=NOW_S, host="12ab", digest=DIGEST)
    return Bundle(**{"about": about, **given, **parts})


def written(tmp_path: Path, bundle: Bundle) -> Path:
    path = tmp_path / "bundle.tar.gz"
    save(bundle, path)
    return path


def test_a_bundle_is_read_as_it_was_taken(tmp_path: Path) -> None:
    spot = Endpoints(src=ip_address("10.132.0.5"), src_port=4000, dst=ip_address("203.0.113.9"), dst_port=443)
    bundle = taken(flows=(Flow(protocol=6, original=spot, reply=spot),), log=({"event": "made"},), ruleset=b"{}")

    assert Bundle.open(written(tmp_path, bundle)) == bundle


@pytest.mark.parametrize(
    "words",
    [
        ("explain", "ns-blue/app-0", "--to", "203.0.113.9"),
        ("trace", "ns-blue/app-0", "--to", "203.0.113.9"),
        ("explain", "ns-green/app-0"),
        ("gateway", "plan"),
        ("gateway", "diff"),
        ("doctor",),
    ],
)
def test_every_question_has_an_answer_from_a_bundle(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run([*words, "--from", str(written(tmp_path, taken()))])

    shown = capsys.readouterr()
    assert code in (0, 1, 2)
    assert "Traceback" not in shown.err
    assert "host 12ab at 1970-01-12 13:46:40 UTC, outgate 0.1.0" in shown.err
    if words[:2] == ("explain", "ns-blue/app-0"):
        assert "leaves gw1 by enp7s0 as 192.168.55.113" in shown.out.splitlines()[0]


def test_what_the_kernel_held_is_told_apart_from_what_was_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = taken()
    assert whole.reading is not None
    without = frozenset(r for r in whole.reading.actual if not isinstance(r, Route))
    path = written(tmp_path, replace(whole, reading=replace(whole.reading, actual=without)))

    assert run(["explain", "ns-blue/app-0", "--to", "203.0.113.9", "--from", str(path)]) == 1
    assert "answers are lost" in capsys.readouterr().out
    assert run(["gateway", "diff", "--from", str(path)]) == 1
    assert capsys.readouterr().out.count("+ 10.132.") == 2


def test_redaction_changes_no_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noisy = replace(
        CLUSTER,
        tenants=(
            replace(CLUSTER.tenants[0], pod_selector=LabelSelector(match_labels=(("app", "shop"),))),
            *CLUSTER.tenants[1:],
        ),
        pods=tuple(replace(one, labels=(("app", "shop"), ("hash", CANARY))) for one in CLUSTER.pods),
    )
    for name, intent in (("a", noisy), ("b", redact_intent(noisy))):
        save(replace(taken(noisy), intent=intent), tmp_path / name)
    answers = []
    for name in ("a", "b"):
        for words in (("explain", "ns-blue/app-0"), ("explain", "ns-green/app-0"), ("gateway", "plan", "-o", "json")):
            run([*words, "--from", str(tmp_path / name)])
            answers.append(capsys.readouterr().out)

    assert answers[:3] == answers[3:]
    assert "app=shop" not in answers[0]


def test_a_part_that_could_not_be_read_says_why_when_it_is_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    why = MappingProxyType({"reading": "nft is not installed", "status": "no daemon answers"})
    lacking = replace(taken(), reading=None, about=replace(taken().about, missing=why))
    path = written(tmp_path, lacking)

    with pytest.raises(NotReady, match="the bundle holds no reading: nft is not installed"):
        sight_of(GatewayOptions(bundle=path))
    assert run(["gateway", "status", "--from", str(path)]) == 2
    assert "no status: no daemon answers" in capsys.readouterr().err


def test_only_its_owner_reads_a_bundle_and_it_is_never_half(tmp_path: Path) -> None:
    target = tmp_path / "somebody-elses"
    target.write_text("kept")
    path = tmp_path / "bundle.tar.gz"
    path.symlink_to(target)

    size = save(taken(), path)

    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    assert path.stat().st_size == size
    assert (target.read_text(), path.is_symlink()) == ("kept", False)
    assert sorted(tmp_path.iterdir()) == [path, target]
    with pytest.raises(Refused, match="No such file or directory"):
        save(taken(), tmp_path / "missing" / "bundle.tar.gz")
    with pytest.raises(Refused):
        save(taken(), target.parent)
    assert sorted(tmp_path.iterdir()) == [path, target]


def archive(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz", format=form) as tar:
        for entry, content in entries:
            tar.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def entry(name: str, content: bytes = b"{}", **changes: Any) -> tuple[tarfile.TarInfo, bytes]:
    made = tarfile.TarInfo(name)
    made.size = len(content)
    for attribute, value in changes.items():
        setattr(made, attribute, value)
    return made, content


ABOUT = "outgate-bundle/about.json"
GOOD = entry(ABOUT, b'{"format": 1}')


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it ends too early"),
        (b"PK\x03\x04" + bytes(600), "no tar.gz"),
        (gzip.compress(b"hello" * 200), "no tar archive"),
        (gzip.compress(bytes(512))[:-4], "ends too early"),
        (archive(GOOD)[:-40], "ends too early"),
        (archive(GOOD)[:-8] + bytes(8), "damaged"),
        (archive(entry("/etc/passwd")), "'/etc/passwd', which is no part"),
        (archive(entry("outgate-bundle/../../x")), "no part of a bundle"),
        (archive(entry("outgate-bundle/" + "x" * 300), form=tarfile.GNU_FORMAT), "no regular file"),
        (archive(entry("outgate-bundle/" + "x" * 300), form=tarfile.PAX_FORMAT), "no regular file"),
        (archive(entry(ABOUT, b"", type=tarfile.SYMTYPE, linkname="/etc/shadow")), "no regular file"),
        (archive(entry(ABOUT, b"", type=tarfile.LNKTYPE, linkname="/etc/shadow")), "no regular file"),
        (archive(entry(ABOUT, b"", type=tarfile.DIRTYPE)), "no regular file"),
        (archive(entry(ABOUT, b"", type=tarfile.CHRTYPE)), "no regular file"),
        (archive(entry(ABOUT, b"", type=tarfile.FIFOTYPE)), "no regular file"),
        (archive(GOOD, GOOD), "about.json twice"),
        (gzip.compress(gzip.decompress(archive(GOOD)) + b"more" * 5000), "behind its end"),
        (archive(entry("outgate-bundle/intent.json")), "lacks about.json"),
        (archive(entry(ABOUT, b"not json")), "about.json is no JSON"),
        (archive(entry(ABOUT, b"[" * 100_000)), "about.json is no JSON"),
        (archive(entry(ABOUT, b"[]")), "in another format"),
        (archive(entry(ABOUT, b'{"format": true}')), "in another format"),
        (archive(entry(ABOUT, b'{"format": 99, "written_by": "9.0.0"}')), 'by outgate "9.0.0" in another format'),
        (archive(entry(ABOUT, b'{"format": 1, "taken_s": 1e300}')), "taken_s is no moment"),
        (archive(entry(ABOUT, b'{"format": 1, "taken_s": "x"}')), "expected float"),
        (archive(GOOD, entry("outgate-bundle/intent.json", b"[" + b"[]," * 13_000_000 + b"[]]")), "12,000,000 values"),
        (archive(GOOD, entry("outgate-bundle/ledger.json", b'{"gateway": 5}')), r"ledger.json: gateway: expected str"),
        (
            archive(GOOD, entry("outgate-bundle/reading.json", b'{"facts": {}, "more": 1}')),
            "no field 'more' in Reading",
        ),
    ],
)
def test_what_is_no_bundle_is_refused_in_a_sentence(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar.gz"
    path.write_bytes(content)

    with pytest.raises(IntentError, match=said):
        Bundle.open(path)


def test_an_archive_that_unfolds_without_end_is_given_up_before_memory_is() -> None:
    bomb = archive(entry(ABOUT, bytes(3 << 20)))
    assert len(bomb) < 8_000

    def names(most_bytes: int) -> list[str]:
        return [name for name, _ in unpack(io.BytesIO(bomb), {ABOUT}, most_bytes)]

    assert names(3 << 20) == [ABOUT]
    with pytest.raises(ValueError, match="more than 2 MiB"):
        names(2 << 20)


def header(size: bytes) -> bytes:
    """A tar header with a size field of its own."""
    made = tarfile.TarInfo(ABOUT).tobuf(tarfile.USTAR_FORMAT)
    made = made[:124] + size.ljust(12, b"\0") + made[136:148] + b" " * 8 + made[156:]
    return made[:148] + b"%06o\0 " % sum(made) + made[156:]


@pytest.mark.parametrize(
    ("size", "said"),
    [(b"\xff" * 12, "negative size"), (b"77777777777", "more than 512 MiB"), (b"7777777", "too early")],
)
def test_a_header_that_lies_about_its_file_costs_nothing(size: bytes, said: str) -> None:
    lying = io.BytesIO(gzip.compress(header(size) + bytes(512)))

    with pytest.raises(ValueError, match=said):
        list(unpack(lying, {ABOUT}))


def test_names_from_a_bundle_do_not_draw_on_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b]0;owned\x07\u202eapp"
    pods = (replace(CLUSTER.pods[0], node=evil), *CLUSTER.pods[1:])
    path = written(tmp_path, taken(intent=replace(CLUSTER, pods=pods)))

    run(["explain", "ns-blue/app-0", "--from", str(path)])

    shown = capsys.readouterr().out
    assert "owned" in shown
    assert all(letter.isprintable() or letter == "\n" for letter in shown)


def test_probing_is_not_offered_for_a_machine_that_is_not_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, taken())

    assert run(["doctor", "--probe", "--from", str(path)]) == 2
    assert "a bundle has none" in capsys.readouterr().err


def test_a_bundle_of_another_version_is_read_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = taken()
    path = written(tmp_path, replace(other, about=replace(other.about, written_by="0.0.9", flows=12_345)))

    assert FORMAT == 1
    run(["gateway", "plan", "--from", str(path)])
    said = capsys.readouterr().err
    assert "which may decide otherwise" in said
    assert "12,345 more are not in it" in said


@pytest.fixture(autouse=True)
def without_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")


def test_a_bundle_that_can_not_be_opened_is_told_by_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places: list[tuple[Path, Callable[[Path], object]]] = [
        (tmp_path / "missing", lambda _: None),
        (tmp_path / "folder", Path.mkdir),
    ]
    for path, make in places:
        make(path)
        assert run(["explain", "ns-blue/app-0", "--from", os.fspath(path)]) == 2
        assert str(path) in capsys.readouterr().err
