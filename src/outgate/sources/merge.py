"""Many files become one Intent: sorted, without duplicates, and without losing what a slip of the pen made unreadable.

An object that was in force and stands in a file that can not be read now stays in force as it was: a broken manifest
is not a deletion. Kinds that did not change keep their very tuples, so that later steps see at a glance that nothing
moved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import is_
from types import MappingProxyType
from typing import cast

from outgate.model import intent
from outgate.model.intent import Intent
from outgate.model.why import Finding, Severity
from outgate.sources.convert import ModelObject
from outgate.sources.parsed import Broken, Ignored, Key, Parsed, key_of, kind_of, refusal

_KINDS = (
    "EgressGateway",
    "EgressTenant",
    "EgressPool",
    "EgressClaim",
    "EgressRouting",
    "Node",
    "Namespace",
    "Pod",
    "Network",
    "AdminPolicyBasedExternalRoute",
    "EgressIP",
)
_SHOWN = 100  # findings of one sort that are told one by one; a broken dump has as many as pods

Objects = tuple[ModelObject, ...]
Kept = Mapping[Key, ModelObject]


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """The readable objects of one kind, sorted, and what they came from."""

    parts: tuple[Objects, ...] = ()
    by_key: Kept = field(default_factory=dict)
    objects: Objects = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """An Intent, and what the next one is compared with. `in_force` has readable objects and those that were kept."""

    intent: Intent = field(default_factory=Intent)
    merged: Mapping[str, Merged] = field(default_factory=dict)
    kept: Mapping[str, Kept] = field(default_factory=dict)
    in_force: Mapping[str, Objects] = field(default_factory=dict)


def merge(files: Mapping[str, Parsed], before: State, notes: Sequence[Finding] = ()) -> State:
    """Return the intent of these files, in their order; `before` is what was in force."""
    broken = [one for parsed in files.values() for one in parsed.broken]
    parts: dict[str, list[Objects]] = {kind: [] for kind in _KINDS}
    for parsed in files.values():
        for kind, objects in parsed.objects.items():
            parts[kind].append(objects)
    merged = {kind: _merge_kind(tuple(parts[kind]), before.merged.get(kind, Merged())) for kind in _KINDS}
    kept_for = [_kept(one, merged, before) for one in broken]
    kept: dict[str, dict[Key, ModelObject]] = {kind: {} for kind in _KINDS}
    for found in kept_for:
        for key, one in found.items():
            kept[kind_of(key)][key] = one
    in_force = {kind: _in_force(kind, merged[kind], kept[kind], before) for kind in _KINDS}
    findings = [
        *_refusals(broken, kept_for),
        *(finding for one in merged.values() for finding in one.findings),
        *_ignored(files),
        *_extra_networks(in_force["Network"]),
        *notes,
    ]
    return State(
        intent=_intent(in_force, tuple(findings)),
        merged=MappingProxyType(merged),
        kept=MappingProxyType(kept),
        in_force=MappingProxyType(in_force),
    )


def _merge_kind(parts: tuple[Objects, ...], before: Merged) -> Merged:
    """Bring the objects of a kind together, a part for each file; the first of two with one name stays."""
    if len(parts) == len(before.parts) and all(map(is_, parts, before.parts)):
        return before
    by_key: dict[Key, ModelObject] = {}
    doubles: list[tuple[ModelObject, ModelObject]] = []
    for part in parts:
        for one in part:
            first = by_key.setdefault(key_of(one), one)
            if first is not one:
                doubles.append((first, one))
    objects = tuple(by_key[key] for key in sorted(by_key))
    return Merged(parts=parts, by_key=by_key, objects=objects, findings=tuple(_doubles(doubles)))


def _doubles(doubles: list[tuple[ModelObject, ModelObject]]) -> Iterator[Finding]:
    for first, second in doubles[:_SHOWN]:
        where = replace(first.origin, kind="", namespace="", name="")
        text = f"is written down a second time here; the first, in {where}, stays in force"
        finding = refusal(text, "remove one of them", second.origin)
        yield replace(finding, reason="DuplicateObject")
    if len(doubles) > _SHOWN:
        file = doubles[_SHOWN][1].origin.file
        text = f"{len(doubles) - _SHOWN} more objects are written down a second time"
        yield Finding("DuplicateObject", file, text, Severity.REFUSAL, "remove one of the files")


def _kept(broken: Broken, merged: Mapping[str, Merged], before: State) -> Kept:
    """Return what stays in force for one unreadable place.

    Where nobody can tell which object it is, all that this file held and that is nowhere now may be it.
    """
    if not before.in_force:
        return {}
    if broken.key is not None:
        kind = kind_of(broken.key)
        old = before.merged[kind].by_key.get(broken.key) or before.kept[kind].get(broken.key)
        return {broken.key: old} if old is not None and broken.key not in merged[kind].by_key else {}
    file = broken.finding.origin.file if broken.finding.origin else ""
    return {
        key: one
        for kind, objects in before.in_force.items()
        for one in objects
        if one.origin.file == file and (key := key_of(one)) not in merged[kind].by_key
    }


def _in_force(kind: str, merged: Merged, kept: Kept, before: State) -> Objects:
    if not kept:
        return merged.objects
    if merged is before.merged.get(kind) and kept == before.kept.get(kind):
        return before.in_force[kind]
    return tuple(sorted((*merged.objects, *kept.values()), key=key_of))


def _refusals(broken: list[Broken], kept_for: list[Kept]) -> Iterator[Finding]:
    """Word what can not be read, with what that means for the data path."""
    told: dict[str, int] = {}
    for one, kept in zip(broken, kept_for, strict=True):
        file = one.finding.origin.file if one.finding.origin else ""
        told[file] = told.get(file, 0) + 1
        if told[file] <= _SHOWN:
            yield replace(one.finding, text=one.finding.text + _consequence(one, kept))
    for file, count in told.items():
        if count > _SHOWN:
            text = f"{count - _SHOWN} more places of this file can not be read"
            yield Finding("InvalidManifest", file, text, Severity.REFUSAL, "get the file anew")


def _consequence(broken: Broken, kept: Kept) -> str:
    if not kept:
        return ""
    if broken.key is not None:
        return "; what was read before stays in force"
    names = [one.origin.object for one in kept.values()]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"; what was read from this file before stays in force: {', '.join(names[:3])}{more}"


def _ignored(files: Mapping[str, Parsed]) -> Iterator[Finding]:
    """Tell of each kind that nobody reads, once."""
    all_files: dict[str, Ignored] = {}
    for parsed in files.values():
        for kind, one in parsed.ignored.items():
            before = all_files.get(kind)
            all_files[kind] = replace(before, count=before.count + one.count) if before else one
    for kind, one in sorted(all_files.items()):
        count = "1 object" if one.count == 1 else f"{one.count} objects"
        text = f"{count} of the kind {kind}: outgate does not read it"
        yield Finding("KindIgnored", one.origin.object, text, Severity.NOTE, one.hint, one.origin)


def _extra_networks(objects: Objects) -> Iterator[Finding]:
    chosen = the_network(objects)
    for one in objects:
        if one is not chosen and chosen is not None:
            text = f"a cluster has one Network; {chosen.origin.object} is used"
            yield Finding("KindIgnored", one.origin.object, text, Severity.WARNING, "remove this one", one.origin)


def the_network(objects: Objects) -> intent.ClusterNetwork | None:
    """Return the cluster's Network: the one named `cluster`, as OpenShift has it, else the first by name."""
    networks = cast("tuple[intent.ClusterNetwork, ...]", objects)
    named = (one for one in networks if one.origin.name == "cluster")
    return next(named, networks[0] if networks else None)


def _intent(in_force: Mapping[str, Objects], findings: tuple[Finding, ...]) -> Intent:
    return Intent(
        gateways=cast("tuple[intent.EgressGateway, ...]", in_force["EgressGateway"]),
        tenants=cast("tuple[intent.EgressTenant, ...]", in_force["EgressTenant"]),
        pools=cast("tuple[intent.EgressPool, ...]", in_force["EgressPool"]),
        claims=cast("tuple[intent.EgressClaim, ...]", in_force["EgressClaim"]),
        nodes=cast("tuple[intent.Node, ...]", in_force["Node"]),
        namespaces=cast("tuple[intent.Namespace, ...]", in_force["Namespace"]),
        pods=cast("tuple[intent.Pod, ...]", in_force["Pod"]),
        network=the_network(in_force["Network"]),
        external_routes=cast("tuple[intent.ExternalRoute, ...]", in_force["AdminPolicyBasedExternalRoute"]),
        egress_ips=cast("tuple[intent.EgressIP, ...]", in_force["EgressIP"]),
        egress_routings=cast("tuple[intent.EgressRouting, ...]", in_force["EgressRouting"]),
        refusals=findings,
    )
