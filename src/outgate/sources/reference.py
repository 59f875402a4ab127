"""The reference of our kinds as a page, made from their description."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from outgate.sources.crd import CONDITIONS
from outgate.sources.examples import EXAMPLES
from outgate.sources.fields import API_VERSION, SELECTOR
from outgate.sources.json_reader import MOST_JSON_BYTES
from outgate.sources.node import DEEPEST
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
from outgate.sources.yaml_reader import MOST_YAML_BYTES

_CLUSTER_OBJECTS = {
    "Node (v1)": "the annotation `k8s.ovn.org/node-subnets` (all networks, both families), else `spec.podCIDRs`, else"
    " `spec.podCIDR`; the annotations `k8s.ovn.org/node-primary-ifaddr`, `k8s.ovn.org/l3-gateway-config` and"
    " `k8s.ovn.org/host-cidrs`; the label `k8s.ovn.org/egress-assignable`; InternalIP addresses; the condition Ready",
    "Namespace (v1)": "labels; `kubernetes.io/metadata.name` is added where it is missing",
    "Pod (v1)": "`status.podIPs`, else `status.podIP`; `spec.nodeName`; `spec.hostNetwork`; `status.phase`; labels",
    "Network (config.openshift.io/v1)": "`clusterNetwork` and `serviceNetwork`, of status first, else of spec",
    "AdminPolicyBasedExternalRoute (k8s.ovn.org/v1)": "`spec.from.namespaceSelector`, `spec.nextHops.static[].ip`",
    "EgressIP (k8s.ovn.org/v1)": "`spec.egressIPs`, `spec.namespaceSelector`, `spec.podSelector`, `status.items`",
}

_INTRODUCTION = f"""<!-- Made by tools/deploy.py from src/outgate/sources. Change it there. -->
# Kinds and fields

All kinds belong to `{API_VERSION}`. EgressClaim lives in a namespace and needs a cluster, in which the cluster role
makes a tenant of it; the others belong to the whole cluster: they have no namespace. They are accepted as files, and
their CustomResourceDefinitions stand in `deploy/crds/`. `kubectl get outgate` lists the objects of all of them. An
EgressNode, which the cluster role makes for each node that has an egress IP, has no spec: it is for reading.

A manifest directory may hold `*.yaml`, `*.yml` and `*.json`, with one document or many, and lists as `kubectl get -o
yaml` and `-o json` print them. Hidden and temporary files are passed over, and so are directories within. Files count
in the order of their names: of two objects with one name the first is used, and the second is refused.

- YAML is read by the core schema of YAML 1.2, strictly. A key that stands twice, anchors and aliases, tags, and numbers
  with a leading zero are refused. `NO` and `off` are strings here; for kubectl, which reads YAML 1.1, put them in
  quotes.
- YAML files have at most {MOST_YAML_BYTES >> 20} MiB, JSON files {MOST_JSON_BYTES >> 30} GiB; our own kinds have at
  most {DEEPEST} levels of nesting. Large dumps of a cluster are quicker as JSON.
- What is wrong is told with file, line, column and field, what was expected, and what to do. One broken object stops
  nothing but itself. An object that was in force and can not be read any more stays in force as it was, until it is
  mended or gone. Where a file is so broken that nobody can tell which objects it holds, that goes for all of them.
- A file that a program has open for writing is read when the program has closed it.
- Unknown fields are refused, with the nearest known name."""

_SELECTOR_TEXT = """## Label selectors

Fields that are a label selector have these fields. All that is given must hold. An empty selector is refused, because
elsewhere it may mean everything."""


def reference() -> str:
    """Return the page."""
    parts = [_INTRODUCTION, *(_kind(kind) for kind in KINDS.values()), _selectors(), _conditions(), _cluster_objects()]
    return "\n\n".join(parts) + "\n"


def _kind(kind: Kind) -> str:
    lines = [f"## {kind.name}", "", f"{kind.text} Short name: `{kind.short}`.", "", "```yaml"]
    lines += [EXAMPLES[kind.name].strip(), "```", ""]
    lines += _table(_rows(kind.spec, "spec"))
    rules = [f"- `{path}`: {rule.text}; {rule.fix}." for path, rule in _rules(kind.spec, "spec")]
    lines += ["", "Refused, besides what breaks these limits:", "", *rules]
    return "\n".join(lines)


def _table(rows: Iterator[tuple[str, str, str, str]]) -> Iterator[str]:
    yield from ("| field | what it is | when absent | meaning |", "|---|---|---|---|")
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |"


def _selectors() -> str:
    return "\n".join([_SELECTOR_TEXT, "", *_table(_rows(SELECTOR, "selector"))])


def _rows(shape: Shape, path: str) -> Iterator[tuple[str, str, str, str]]:
    for field in _fields(shape):
        here = f"{path}.{field.name}"
        yield f"`{here}`", _limits(field.shape), _absent(field, is_choice=isinstance(shape, OneOf)), _meaning(field)
        if field.shape is not SELECTOR:
            yield from _rows(field.shape, f"{here}[]" if isinstance(field.shape, Many) else here)


def _fields(shape: Shape) -> tuple[Field, ...]:
    match shape:
        case Record(fields=fields):
            return fields
        case OneOf(options=options):
            return options
        case Many(item=item):
            return _fields(item)
        case _:
            return ()


def _rules(shape: Shape, path: str) -> Iterator[tuple[str, Rule]]:
    if isinstance(shape, Record) and shape is not SELECTOR:
        yield from ((f"{path}.{rule.at}" if rule.at else path, rule) for rule in shape.rules)
    for field in _fields(shape):
        yield from _rules(field.shape, f"{path}.{field.name}" + ("[]" if isinstance(field.shape, Many) else ""))


def _limits(shape: Shape) -> str:
    match shape:
        case Text():
            return shape.what
        case Whole():
            unit = f" {shape.unit}" if shape.unit else ""
            return f"whole number, {shape.least} to {shape.most}{unit}"
        case Flag():
            return "`true` or `false`"
        case Choice():
            return "one of " + ", ".join(f"`{option.value}`" for option in shape.of)
        case Many():
            item = "each a mapping" if isinstance(shape.item, Record) else f"each {_limits(shape.item)}"
            least = f"{shape.least} to {shape.most}" if shape.least else f"at most {shape.most}"
            family = f", {shape.per_family} a family" if shape.per_family else ""
            return f"list of {least}{family}, {item}"
        case Pairs():
            return f"mapping of labels, at most {shape.most}"
        case Record():
            return "[label selector](#label-selectors)" if shape is SELECTOR else "mapping"
        case OneOf():
            return "mapping with exactly one of its fields"
        case _:
            assert_never(shape)


def _absent(field: Field, *, is_choice: bool) -> str:
    if is_choice:
        return ""
    if field.required:
        return "required"
    if field.default is not MISSING:
        return f"`{field.default}`"
    return field.absent or "none"


def _meaning(field: Field) -> str:
    shape = field.shape
    if isinstance(shape, Choice):
        meanings = "; ".join(f"`{option.value}`: {shape.meanings[option]}" for option in shape.of)
        return f"{field.text} {meanings}."
    return field.text


def _conditions() -> str:
    lines = ["## Conditions", "", "`status.conditions` of all three kinds:", "", "| type | true means |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {text} |" for name, text in CONDITIONS.items())])


def _cluster_objects() -> str:
    lines = [
        "## Objects of the cluster",
        "",
        "Taken as the API server shows them; fields that are not named here do not matter. Other kinds are passed",
        "over, with a note.",
        "",
        "| kind | what is read |",
        "|---|---|",
    ]
    return "\n".join([*lines, *(f"| {kind} | {what} |" for kind, what in _CLUSTER_OBJECTS.items())])
