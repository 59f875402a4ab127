"""The way back: an object of our kinds as the manifest that asks for it.

What stands at its default is left out, so that a manifest says what somebody wanted and nothing else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, assert_never

from outgate.model.intent import (
    Assignment,
    Departure,
    EgressClaim,
    EgressGateway,
    EgressNode,
    EgressPool,
    EgressRouting,
    EgressTenant,
)
from outgate.model.routing import DEFAULT_ROUTING, Routing
from outgate.model.selector import LabelSelector
from outgate.sources.fields import API_VERSION, SELECTOR
from outgate.sources.routing_fields import ROUTING
from outgate.sources.shape import Choice, Field, Flag, Many, OneOf, Pairs, Record, Shape, Text, Whole
from outgate.sources.tenant_fields import KINDS


def dump(given: EgressGateway | EgressTenant | EgressPool | EgressClaim | EgressRouting) -> dict[str, Any]:
    """Return the manifest of an object as plain dictionaries and lists, its keys in the order in which people read."""
    kind = KINDS[type(given).__name__]
    where = {"namespace": given.namespace} if isinstance(given, EgressClaim) else {}
    return {
        "apiVersion": API_VERSION,
        "kind": kind.name,
        "metadata": {"name": given.name, **where},
        "spec": _fields(kind.spec, given),
    }


def dump_selector(given: LabelSelector) -> dict[str, Any]:
    """Return a label selector as a manifest has it."""
    return _fields(SELECTOR, given)


def dump_work(node: EgressNode) -> dict[str, Any]:
    """Return what a node has to do, as the status of its EgressNode says it."""
    return {
        "stance": node.stance.value,
        "egressIPs": [_assignment(one) for one in node.assignments],
        "departures": [_departure(one) for one in node.departures],
    }


def _assignment(one: Assignment) -> dict[str, Any]:
    pods = [
        {"namespace": pod.namespace, "name": pod.name, "addresses": [str(address) for address in pod.addresses]}
        | ({"contested": True} if pod.contested else {})
        for pod in one.pods
    ]
    routing = {known.name: _dump(known.shape, value) for known, value in _said(one.routing)}
    return {"name": one.egress_ip, "address": str(one.address), "pods": pods} | (
        ({"routing": routing} if routing else {}) | ({"new": True} if one.is_new else {})
    )


def _said(routing: Routing) -> Iterator[tuple[Field, Any]]:
    """Yield the settings that differ from what nobody has said."""
    for known in ROUTING.spec.fields:
        value = getattr(routing, known.attribute, None)
        if value is not None and value != getattr(DEFAULT_ROUTING, known.attribute):
            yield known, value


def _departure(one: Departure) -> dict[str, Any]:
    said = {
        "egressIP": one.egress_ip,
        "namespace": one.namespace,
        "name": one.name,
        "addresses": [str(address) for address in one.addresses],
    }
    return said | ({"nodes": list(one.nodes)} if one.nodes else {}) | ({"drops": True} if one.drops else {})


def _fields(record: Record, given: object) -> dict[str, Any]:
    dumped: dict[str, Any] = {}
    for known in record.fields:
        value = getattr(given, known.attribute)
        shown = _dump(known.shape, value) if value is not None else None
        if known.required or not (_is_default(record, known.attribute, value) or shown == known.default):
            dumped[known.name] = shown
    return dumped


def _is_default(record: Record, attribute: str, value: object) -> bool:
    """Return whether the model has this value where nobody gives one."""
    assert isinstance(record.of, type), "records become dataclasses"
    known = next(one for one in dataclasses.fields(record.of) if one.name == attribute)
    made = known.default_factory() if known.default_factory is not dataclasses.MISSING else known.default
    return bool(made == value)


def _dump(shape: Shape, value: Any) -> Any:
    match shape:
        case Text():
            return shape.show(value)
        case Whole():
            return value if shape.scale == 1 else round(value * shape.scale)
        case Flag():
            return value
        case Choice():
            return value.value
        case Many():
            return [_dump(shape.item, item) for item in value]
        case Pairs():
            return dict(value)
        case Record():
            return _fields(shape, value)
        case OneOf():
            chosen = next(one for one in shape.options if isinstance(one.shape, Record) and type(value) is one.shape.of)
            return {chosen.name: _dump(chosen.shape, value)}
        case _:
            assert_never(shape)
