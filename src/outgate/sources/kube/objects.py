"""Bytes of the API server become entries: cluster objects by structs in one pass, our own kinds by the strict reader.

A text that does not fit its struct (a broken object, a bookmark, an error) is read a second time, slowly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from ipaddress import ip_address
from typing import Any

import msgspec
from msgspec import Struct

from outgate.model.intent import (
    CLAIM_NAME,
    CLAIM_NAMESPACE,
    Condition,
    EgressTenant,
    Given,
    Served,
    Standing,
    Told,
    Unread,
)
from outgate.model.why import Finding, Origin
from outgate.sources import cluster
from outgate.sources.convert import Converter, Misfit
from outgate.sources.history import MovedAddress, moved
from outgate.sources.json_reader import read_json
from outgate.sources.kube.holding import Entry
from outgate.sources.kube.kinds import Watched
from outgate.sources.node import Fault
from outgate.sources.own import OwnObject, read_own
from outgate.sources.parsed import Key, refusal
from outgate.sources.tenant_fields import KINDS

_SERVER_FIX = "the API server should not have taken this; correct the object"


class _Meta(Struct, frozen=True, gc=False, rename="camel"):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    labels: dict[str, str] = {}


class _Condition(Struct, frozen=True, gc=False, rename="camel"):
    type: str
    status: str
    reason: str = ""
    message: str = ""
    observed_generation: int = 0
    last_transition_time: str = ""


class _Word(Struct, frozen=True, gc=False, rename="camel"):
    name: str
    observed_generation: int
    programmed: bool
    reason: str
    message: str


class _GivenAddress(Struct, frozen=True, gc=False, rename="camel"):
    address: str
    tenant: str
    rests_until: datetime | None = None


class _OwnStatus(Struct, frozen=True, gc=False):
    egress_ips: tuple[str, ...] = msgspec.field(name="egressIPs", default=())
    conditions: tuple[_Condition, ...] = ()
    gateways: tuple[_Word, ...] = ()
    addresses: tuple[_GivenAddress, ...] = ()
    moves: tuple[MovedAddress, ...] = ()


class _Head(Struct, frozen=True, gc=False):
    metadata: _Meta


class _OwnHead(Struct, frozen=True, gc=False):
    metadata: _Meta
    status: _OwnStatus = _OwnStatus()


class _LiveMeta(cluster.Meta, frozen=True, gc=False, rename="camel", kw_only=True):
    uid: str
    resource_version: str


class _LiveNodeMeta(cluster.NodeMeta, frozen=True, gc=False, rename="camel", kw_only=True):
    uid: str
    resource_version: str


class _LiveDatedMeta(cluster.DatedMeta, frozen=True, gc=False, rename="camel", kw_only=True):
    uid: str
    resource_version: str


_LIVE = {cluster.Node: _LiveNodeMeta, cluster.EgressIP: _LiveDatedMeta}


class _Status(Struct, frozen=True, gc=False):
    code: int = 0
    message: str = ""


class _ListMeta(Struct, frozen=True, gc=False, rename="camel"):
    resource_version: str = ""
    next_page: str = msgspec.field(name="continue", default="")


class _RawPage(Struct, frozen=True, gc=False):
    metadata: _ListMeta
    items: list[msgspec.Raw] | None = None


class _RawEvent(Struct, frozen=True, gc=False):
    type: str
    object: msgspec.Raw


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list; `next_page` is empty on the last."""

    entries: list[tuple[Key, Entry]]
    version: str
    next_page: str


@dataclass(frozen=True, slots=True)
class Event:
    """ADDED, MODIFIED or DELETED with an entry; BOOKMARK with a version; ERROR with code and message."""

    type: str
    key: Key = ""
    entry: Entry | None = None
    version: str = ""
    code: int = 0
    message: str = ""


class ObjectReader:
    """Reads objects of one kind. For one thread."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._converter = Converter("")
        self._pages: msgspec.json.Decoder[Any] | None = None
        self._events: msgspec.json.Decoder[Any] | None = None
        if watched.shape is not None:
            meta = _LIVE.get(watched.shape, _LiveMeta)
            live = msgspec.defstruct(
                f"Live{watched.kind}",
                [("metadata", meta)],
                bases=(watched.shape,),
                frozen=True,
                gc=False,
                kw_only=True,
                tag_field="kind",
                tag=watched.kind,
            )
            self._live = msgspec.json.Decoder(live)
            page = msgspec.defstruct("LivePage", [("metadata", _ListMeta), ("items", list[live] | None, None)])  # type: ignore[valid-type]
            event = msgspec.defstruct("LiveEvent", [("type", str), ("object", live)], frozen=True, gc=False)
            self._pages, self._events = msgspec.json.Decoder(page), msgspec.json.Decoder(event)

    def page(self, body: bytes) -> Page:
        """Read one page of a list.

        Raises:
            msgspec.DecodeError: this is no list of an API server.
        """
        if self._pages is not None:
            try:
                found = self._pages.decode(body)
                entries = [self._typed(one) for one in found.items or ()]
            except (msgspec.ValidationError, Misfit):
                pass  # one of them does not fit: each for itself
            else:
                return Page(entries, found.metadata.resource_version, found.metadata.next_page)
        raw = msgspec.json.decode(body, type=_RawPage)
        entries = [self._single(bytes(item)) for item in raw.items or ()]
        return Page(entries, raw.metadata.resource_version, raw.metadata.next_page)

    def event(self, line: bytes) -> Event:
        """Read one line of a watch.

        Raises:
            msgspec.DecodeError: this is no event of an API server.
        """
        if self._events is not None:
            try:
                found = self._events.decode(line)
                key, entry = self._typed(found.object)
            except (msgspec.ValidationError, Misfit):
                pass  # a bookmark, an error, or an object that does not fit
            else:
                return Event(found.type, key, entry, entry.version)
        raw = msgspec.json.decode(line, type=_RawEvent)
        if raw.type == "ERROR":
            status = msgspec.json.decode(raw.object, type=_Status)
            return Event(raw.type, code=status.code, message=status.message)
        if raw.type == "BOOKMARK":
            return Event(raw.type, version=msgspec.json.decode(raw.object, type=_Head).metadata.resource_version)
        key, entry = self._single(bytes(raw.object))
        return Event(raw.type, key, entry, entry.version)

    def _typed(self, given: Any) -> tuple[Key, Entry]:
        made = self._converter.convert(given)
        meta = given.metadata
        object.__setattr__(made.origin, "resource_version", meta.resource_version)  # nobody has seen it yet
        key = f"{self._watched.kind}\0{getattr(meta, 'namespace', '') or ''}\0{meta.name}"
        return key, Entry(meta.uid, meta.resource_version, made)

    def _single(self, text: bytes) -> tuple[Key, Entry]:
        """Read one object by itself; what can not be read is an entry with the reasons."""
        meta = msgspec.json.decode(text, type=_Head).metadata
        key = f"{self._watched.kind}\0{meta.namespace}\0{meta.name}"
        if self._watched.shape is None:
            return key, self._own(text, msgspec.json.decode(text, type=_OwnHead))
        try:
            return self._typed(self._live.decode(text))
        except Misfit as error:
            return key, self._unreadable(meta, error.path, error.text, error.fix)
        except msgspec.ValidationError as error:
            said, _, path = str(error).partition(" - at `$")
            return key, self._unreadable(meta, path.strip(".`"), said[:1].lower() + said[1:].replace("`", ""), "")

    def _own(self, text: bytes, head: _OwnHead) -> Entry:
        node, meta = read_json(text), head.metadata
        if isinstance(node, Fault):
            return replace(self._unreadable(meta, "", node.text, node.fix), unread=self._unread(head))
        made = read_own(KINDS[self._watched.kind], node, "")
        if isinstance(made, list):
            findings = [self._finding(meta, one.field, one.text, one.fix) for one in made]
            return Entry(meta.uid, meta.resource_version, None, tuple(findings), self._unread(head))
        return Entry(meta.uid, meta.resource_version, _live(made, head, with_status=self._watched.with_status))

    def _unread(self, head: _OwnHead) -> Unread | None:
        """Return what is served of an object that can not be read, to who writes statuses."""
        if not self._watched.with_status:
            return None
        meta = head.metadata
        return Unread(
            kind=self._watched.kind, name=meta.name, namespace=meta.namespace, served=_served(head, with_status=True)
        )

    def _unreadable(self, meta: _Meta, path: str, text: str, fix: str) -> Entry:
        return Entry(meta.uid, meta.resource_version, None, (self._finding(meta, path, text, fix),))

    def _finding(self, meta: _Meta, path: str, text: str, fix: str) -> Finding:
        origin = Origin(
            kind=self._watched.kind,
            namespace=meta.namespace,
            name=meta.name,
            field=path,
            resource_version=meta.resource_version,
        )
        return refusal(text, fix or _SERVER_FIX, origin)


def _live(made: OwnObject, head: _OwnHead, *, with_status: bool) -> OwnObject:
    """Return an object of ours with what the server adds. A place in the answer of a server is no place for a user."""
    meta = head.metadata
    origin = Origin(
        kind=made.origin.kind, namespace=meta.namespace, name=meta.name, resource_version=meta.resource_version
    )
    served = _served(head, with_status=with_status)
    if isinstance(made, EgressTenant) and made.claim is not None:
        allocated = tuple(map(ip_address, head.status.egress_ips))
        return replace(made, origin=origin, served=served, allocated=allocated)
    return replace(made, origin=origin, served=served)


def _served(head: _OwnHead, *, with_status: bool) -> Served:
    meta = head.metadata
    return Served(
        uid=meta.uid,
        generation=meta.generation,
        created=meta.creation_timestamp or "",
        version=meta.resource_version if with_status else "",
        standing=_standing(head.status) if with_status else None,
        claim=_claim_of(meta.labels) if with_status else None,
    )


def _claim_of(labels: Mapping[str, str]) -> tuple[str, str] | None:
    namespace, name = labels.get(CLAIM_NAMESPACE), labels.get(CLAIM_NAME)
    return (namespace, name) if namespace and name else None


def _standing(status: _OwnStatus) -> Standing:
    return Standing(
        addresses=tuple(map(ip_address, status.egress_ips)),
        moves=tuple(map(moved, status.moves)),
        conditions=tuple(
            Condition(
                type=one.type,
                holds={"True": True, "False": False}.get(one.status),
                reason=one.reason,
                message=one.message,
                generation=one.observed_generation,
                since=one.last_transition_time,
            )
            for one in status.conditions
        ),
        told=tuple(
            Told(
                gateway=one.name,
                generation=one.observed_generation,
                programmed=one.programmed,
                reason=one.reason,
                message=one.message,
            )
            for one in status.gateways
        ),
        given=tuple(
            Given(
                address=ip_address(one.address),
                tenant=one.tenant,
                rests_until_s=one.rests_until.timestamp() if one.rests_until else None,
            )
            for one in status.addresses
        ),
    )
