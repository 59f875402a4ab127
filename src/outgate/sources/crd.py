"""The CustomResourceDefinitions of our kinds, made from their description.

Structural schemas with CEL rules. Every list and string has a limit, because the API server estimates what a rule may
cost from them and refuses a definition that could cost too much. Functions of CEL that came with Kubernetes 1.31 (`ip`,
`cidr`) are not used, so that the definitions load from 1.25 on.
"""

from __future__ import annotations

from typing import Any, assert_never

from outgate.sources.fields import GROUP, VERSION
from outgate.sources.shape import (
    MISSING,
    Choice,
    Field,
    Flag,
    Kind,
    Many,
    OneOf,
    Pairs,
    Record,
    Rule,
    Shape,
    Text,
    Whole,
)
from outgate.sources.tenant_fields import KINDS

Schema = dict[str, Any]

CONDITIONS = {
    "Accepted": "the object is valid and does not contradict another one",
    "Programmed": "the gateway machine holds all that the object asks for",
    "Degraded": "something is not as it should be, though traffic may flow",
}


def definitions() -> dict[str, Schema]:
    """Return the definitions by file name."""
    return {f"{GROUP}_{kind.plural}.yaml": definition(kind) for kind in KINDS.values()}


def definition(kind: Kind) -> Schema:
    """Return the definition of one kind."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.name.lower(),
                "shortNames": [kind.short],
                "categories": ["outgate"],
            },
            "scope": "Namespaced" if kind.is_namespaced else "Cluster",
            "versions": [_version(kind)],
        },
    }


def _version(kind: Kind) -> Schema:
    top = {
        "description": kind.text,
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": _schema(kind.spec, "What is asked for."),
            "status": _status(kind),
        },
    }
    return {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": top},
        "subresources": {"status": {}},
        "additionalPrinterColumns": _columns(kind),
    }


def _columns(kind: Kind) -> list[Schema]:
    own = [{"name": title, "type": of, "description": text, "jsonPath": path} for title, of, path, text in kind.columns]
    conditions = [
        {
            "name": name,
            "type": "string",
            "description": f"Whether {text}",
            "jsonPath": f'.status.conditions[?(@.type=="{name}")].status',
        }
        for name, text in CONDITIONS.items()
        if name != "Degraded"
    ]
    age = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
    return [*own, *conditions, age]


def _schema(shape: Shape, text: str) -> Schema:
    """Return the schema of a shape. `maxLength` counts characters, which for these texts are bytes."""
    match shape:
        case Text():
            least = {} if shape.pattern.endswith(")?$") else {"minLength": 1}
            return _described(text, type="string", **least, maxLength=shape.most, pattern=shape.pattern)
        case Whole():
            form = "int64" if shape.most > 0x7FFFFFFF else "int32"
            return _described(text, type="integer", format=form, minimum=shape.least, maximum=shape.most)
        case Flag():
            return _described(text, type="boolean")
        case Choice():
            meanings = "; ".join(f"{option.value}: {shape.meanings[option]}" for option in shape.of)
            return _described(f"{text} {meanings}.", type="string", enum=[option.value for option in shape.of])
        case Many():
            return _many(shape, text)
        case Pairs():
            limits = {"type": "string", "maxLength": shape.value.most, "pattern": shape.value.pattern}
            return _described(text, type="object", maxProperties=shape.most, additionalProperties=limits)
        case Record():
            return _record(shape, text)
        case OneOf():
            first, second = (option.name for option in shape.options)
            rule = {
                "rule": f"has(self.{first}) != has(self.{second})",
                "message": f"exactly one of {first} and {second} must be there",
            }
            properties = {option.name: _schema(option.shape, option.text) for option in shape.options}
            return _described(text, type="object", properties=properties) | {"x-kubernetes-validations": [rule]}
        case _:
            assert_never(shape)


def _many(shape: Many, text: str) -> Schema:
    schema = _described(text, type="array")
    if shape.least:
        schema["minItems"] = shape.least
    schema["maxItems"] = shape.most
    schema["items"] = _schema(shape.item, "")
    schema["x-kubernetes-list-type"] = "set" if isinstance(shape.item, Text) else "atomic"
    if shape.per_family:
        most = shape.per_family
        schema["x-kubernetes-validations"] = [
            {"rule": f"self.filter(a, {test}).size() <= {most}", "message": f"at most {most} {family} addresses"}
            for family, test in (("IPv4", "!a.contains(':')"), ("IPv6", "a.contains(':')"))
        ]
    return schema


def _record(shape: Record, text: str) -> Schema:
    schema = _described(text, type="object")
    required = [field.name for field in shape.fields if field.required]
    if required:
        schema["required"] = required
    schema["properties"] = {field.name: _field(field) for field in shape.fields}
    rules = [_rule(rule) for rule in shape.rules if rule.cel]
    if rules:
        schema["x-kubernetes-validations"] = rules
    return schema


def _rule(rule: Rule) -> Schema:
    return {"rule": rule.cel, "message": f"{rule.at} {rule.text}: {rule.fix}".strip()}


def _field(field: Field) -> Schema:
    text = f"{field.text} When absent: {field.absent}." if field.absent else field.text
    schema = _schema(field.shape, text)
    if field.default is not MISSING:
        schema["default"] = field.default
    return schema


_GENERATION: Schema = {
    "description": "The metadata.generation that this status is about.",
    "type": "integer",
    "format": "int64",
    "minimum": 0,
}
_REASON: Schema = {
    "type": "string",
    "minLength": 1,
    "maxLength": 1024,
    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
}


def _status(kind: Kind) -> Schema:
    """Return the schema of `status`: conditions as metav1.Condition has them, and what each gateway says."""
    properties: Schema = {"observedGeneration": _GENERATION, "conditions": _conditions()}
    if kind.name in ("EgressGateway", "EgressTenant"):
        properties["gateways"] = _words_of_gateways()
    if kind.name in ("EgressTenant", "EgressClaim"):
        properties["egressIPs"] = {
            "description": "The addresses that a claim was given from its pool; written by the cluster role.",
            "type": "array",
            "maxItems": 32,
            "items": {"type": "string", "maxLength": 45},
            "x-kubernetes-list-type": "atomic",
        }
    if kind.name == "EgressPool":
        properties["addresses"] = _given()
    if kind.name == "EgressRouting":
        properties["moves"] = _moves()
    return {"description": "What became of it; written by outgate.", "type": "object", "properties": properties}


def _conditions() -> Schema:
    fields: Schema = {
        "type": {"type": "string", "maxLength": 316, "pattern": "^[A-Za-z][A-Za-z0-9]*$"},
        "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
        "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
        "lastTransitionTime": {"type": "string", "format": "date-time"},
        "reason": _REASON,
        "message": {"type": "string", "maxLength": 32768},
    }
    meanings = "; ".join(f"{name}: {text}" for name, text in CONDITIONS.items())
    required = ["type", "status", "lastTransitionTime", "reason", "message"]
    return _by_key(f"{meanings}.", 16, "type", {"type": "object", "required": required, "properties": fields})


def _words_of_gateways() -> Schema:
    fields: Schema = {
        "name": {"description": "The EgressGateway.", "type": "string", "maxLength": 253},
        "observedGeneration": _GENERATION,
        "programmed": {"description": "Whether the machine holds all of it.", "type": "boolean"},
        "reason": _REASON,
        "message": {"type": "string", "maxLength": 1024},
    }
    item = {"type": "object", "required": list(fields), "properties": fields}
    return _by_key("What each gateway machine says of it.", 64, "name", item)


def _given() -> Schema:
    address = {"description": "An address of the pool.", "type": "string", "maxLength": 45}
    fields: Schema = {
        "address": address,
        "tenant": {"description": "The EgressTenant that has it, or had it.", "type": "string", "maxLength": 253},
        "restsUntil": {
            "description": "It was released, and is nobody else's until then.",
            "type": "string",
            "format": "date-time",
        },
    }
    item = {"type": "object", "required": ["address", "tenant"], "properties": fields}
    return _by_key("The addresses that are given or rest.", 65536, "address", item)


def _moves() -> Schema:
    node = {"description": "A node; empty is none.", "type": "string", "maxLength": 253}
    fields: Schema = {
        "time": {"type": "string", "format": "date-time"},
        "egressIP": {"description": "The EgressIP.", "type": "string", "maxLength": 253},
        "address": {"description": "One of its addresses.", "type": "string", "maxLength": 45},
        "fromNode": node,
        "toNode": node,
        "reason": {"type": "string", "maxLength": 1024},
    }
    item = {"type": "object", "required": ["time", "egressIP", "address"], "properties": fields}
    return {
        "description": "What became of egress IPs, the latest last; of `default` only.",
        "type": "array",
        "maxItems": 256,
        "x-kubernetes-list-type": "atomic",
        "items": item,
    }


def _by_key(text: str, most: int, key: str, item: Schema) -> Schema:
    """Return the schema of a list whose entries are told apart by a field, so that each writer owns its own."""
    return {
        "description": text,
        "type": "array",
        "maxItems": most,
        "items": item,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": [key],
    }


def _described(text: str, **schema: object) -> Schema:
    return {"description": text, **schema} if text else dict(schema)
