"""Texts of an API server become entries: what fits is read in one pass, what does not is refused by name and field."""

from __future__ import annotations

import json

from outgate.model.intent import EgressIP, EgressTenant, Intent, Namespace, Node, Pod
from outgate.sources.kube.kinds import LOOKER, needs_pods
from outgate.sources.kube.lastgood import LastGood
from outgate.sources.kube.objects import ObjectReader

META = {"name": "one", "uid": "u-1", "resourceVersion": "7"}
TENANT = {
    "apiVersion": "outgate.io/v1alpha1",
    "kind": "EgressTenant",
    "metadata": META | {"creationTimestamp": "2026-01-01T00:00:00Z", "generation": 1, "managedFields": []},
    "spec": {"identity": {"nextHop": {"addresses": ["10.0.0.1"]}}, "egressIPs": ["192.0.2.1"]},
}


def reader(kind: str) -> ObjectReader:
    return ObjectReader(next(one for one in LOOKER.always if one.kind == kind))


def line(kind: str, given: object) -> bytes:
    return json.dumps({"type": kind, "object": given}).encode()


def test_items_of_a_list_need_not_say_their_kind() -> None:
    item = {"metadata": META | {"namespace": "red"}, "status": {"podIPs": [{"ip": "10.1.0.5"}]}}
    page = reader("Pod").page(
        json.dumps({"metadata": {"resourceVersion": "9", "continue": "x"}, "items": [item]}).encode()
    )
    ((key, entry),) = page.entries
    assert (key, entry.uid, entry.version) == ("Pod\0red\0one", "u-1", "7")
    assert isinstance(entry.value, Pod)
    assert entry.value.origin.resource_version == "7"
    assert (page.version, page.next_page) == ("9", "x")


def test_one_object_that_can_not_be_read_does_not_take_the_page_with_it() -> None:
    good = {"metadata": META}
    bad = {"metadata": META | {"name": "two"}, "status": {"addresses": [{"type": "InternalIP", "address": "nowhere"}]}}
    page = reader("Node").page(json.dumps({"metadata": {"resourceVersion": "9"}, "items": [bad, good]}).encode())
    (_, broken), (_, fine) = page.entries
    assert isinstance(fine.value, Node)
    assert broken.value is None
    assert str(broken.findings[0].origin) == "Node/two status.addresses[0].address"


def test_our_own_kinds_are_read_strictly_and_refused_by_field() -> None:
    event = reader("EgressTenant").event(line("ADDED", TENANT))
    assert event.entry is not None
    assert isinstance(event.entry.value, EgressTenant)
    origin = event.entry.value.origin
    assert (str(origin), origin.resource_version) == ("EgressTenant/one", "7")
    spec = {"identity": {"nextHop": {"addresses": ["10.0.0.1"]}}, "egressIPs": ["192.0.2.256"]}
    refused = reader("EgressTenant").event(line("MODIFIED", TENANT | {"spec": spec})).entry
    assert refused is not None
    assert refused.value is None
    assert str(refused.findings[0].origin) == "EgressTenant/one spec.egressIPs[0]"


def test_an_egress_ip_comes_with_its_age_and_its_nodes() -> None:
    spec = {"egressIPs": ["192.0.2.9"], "namespaceSelector": {}, "egressNodeSelector": {"matchLabels": {"zone": "dmz"}}}
    given = {"kind": "EgressIP", "metadata": META | {"creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec}

    entry = reader("EgressIP").event(line("ADDED", given)).entry

    assert entry is not None
    assert isinstance(entry.value, EgressIP)
    assert (entry.value.created, entry.value.origin.resource_version) == ("2026-01-01T00:00:00Z", "7")
    assert entry.value.node_selector is not None
    assert entry.value.node_selector.matches((("zone", "dmz"),))


def test_bookmarks_and_errors_are_no_objects() -> None:
    bookmark = {"kind": "Pod", "metadata": {"resourceVersion": "12", "creationTimestamp": None}, "spec": {}}
    assert reader("Pod").event(line("BOOKMARK", bookmark)).version == "12"
    error = reader("Pod").event(line("ERROR", {"kind": "Status", "code": 410, "message": "too old"}))
    assert (error.code, error.message, error.entry) == (410, "too old", None)


def test_pods_are_needed_by_tenants_that_are_told_by_them() -> None:
    by_hop = reader("EgressTenant").event(line("ADDED", TENANT)).entry
    assert by_hop is not None
    assert isinstance(by_hop.value, EgressTenant)
    assert not needs_pods((by_hop.value,), None)
    spec = {"identity": {"source": {}}, "egressIPs": ["192.0.2.1"], "namespaceSelector": {"matchLabels": {"a": "b"}}}
    by_source = reader("EgressTenant").event(line("ADDED", TENANT | {"spec": spec})).entry
    assert by_source is not None
    assert isinstance(by_source.value, EgressTenant)
    assert needs_pods((by_source.value,), None)


class Document:
    """A document in memory."""

    def __init__(self) -> None:
        self.content = b""
        self.writes = 0

    def read(self) -> bytes:
        return self.content

    def write(self, content: bytes) -> None:
        self.content, self.writes = content, self.writes + 1


def test_the_last_good_intent_comes_back_exactly_and_says_its_age() -> None:
    document, now = Document(), [1000.0]
    good = LastGood(document, clock=lambda: now[0])
    first, second = Intent(namespaces=(Namespace(name="a"),)), Intent(namespaces=(Namespace(name="b"),))
    good.write(first)
    good.write(first)
    assert document.writes == 1
    good.write(second)
    assert document.writes == 2
    now[0] = 1066.0
    back = LastGood(document, clock=lambda: now[0]).read()
    assert back is not None
    assert back.namespaces == second.namespaces
    assert "66 s ago" in back.refusals[0].text


def test_a_document_that_is_not_ours_is_no_intent() -> None:
    document = Document()
    for content in (b"", b"{", b"[]", b'{"format": 2}', b'{"format": 1, "saved_s": 1, "intent": {"pods": 5}}'):
        document.content = content
        assert LastGood(document).read() is None
