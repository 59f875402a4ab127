"""One object of our own kinds, from its tree: strict, because a field that nobody reads is a wish nobody grants."""

from __future__ import annotations

from collections.abc import Mapping

from outgate.model.intent import EgressClaim, EgressGateway, EgressPool, EgressRouting, EgressTenant
from outgate.model.why import Origin
from outgate.sources import formats
from outgate.sources.fields import API_VERSION
from outgate.sources.node import Node, text_at
from outgate.sources.shape import Kind
from outgate.sources.validate import BROKEN, Problem, Problems, read_fields, read_shape
from outgate.sources.words import instead, nearest, plain

OwnObject = EgressGateway | EgressTenant | EgressPool | EgressClaim | EgressRouting

_TOP = ("apiVersion", "kind", "metadata", "spec", "status")
_META = (
    "name",
    "labels",
    "annotations",
    # What an API server adds, so that `kubectl get -o yaml` drops in:
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
)


def read_own(kind: Kind, node: Node, file: str) -> OwnObject | list[Problem]:
    """Return the object, or everything that is wrong with it."""
    problems = Problems()
    top = node.value if isinstance(node.value, dict) else {}
    for name, item in top.items():
        if name not in _TOP:
            fix = f"did you mean {nearest(name, _TOP)}?" if nearest(name, _TOP) else _in_spec(kind, name)
            problems.add(plain(name), item, f"there is no field {plain(name)} here", fix, at_key=True)
    namespace, name = _names(kind, top, node, problems)
    if "spec" in top:
        values = read_fields(kind.spec, top["spec"], "spec", problems)
    else:
        values = None
        problems.add("spec", node, "spec is missing", "add spec with its fields")
    if problems.found or values is None:
        return sorted(problems.found, key=lambda problem: (problem.line, problem.column))
    origin = Origin(
        file=file,
        line=node.line,
        column=node.column,
        kind=kind.name,
        namespace=namespace,
        name=name,
        resource_version=text_at(node, "metadata", "resourceVersion"),
    )
    where = {"namespace": namespace} if kind.is_namespaced else {}
    made = kind.spec.of(**values, **where, name=name, origin=origin)
    assert isinstance(made, OwnObject), f"{kind.name} is described as one of our kinds"
    return made


def _in_spec(kind: Kind, name: str) -> str:
    """Return what to do about a field at the top: the usual slip is that it belongs one level deeper."""
    known = [field.name for field in kind.spec.fields]
    found = nearest(name, known)
    return f"put it under spec, as {found}" if found else instead(name, _TOP)


def _names(kind: Kind, top: Mapping[str, Node], node: Node, problems: Problems) -> tuple[str, str]:
    """Return namespace and name; the namespace is empty where the kind has none."""
    metadata = top.get("metadata")
    if metadata is None or not isinstance(metadata.value, dict):
        problems.add("metadata", metadata or node, "expected metadata with a name", "add metadata: {name: ...}")
        return "", ""
    given = metadata.value
    for field, item in given.items():
        if field == "namespace" and kind.is_namespaced:
            continue
        if field == "namespace":
            text = "the kind has no namespaces: its objects belong to the whole cluster"
            problems.add("metadata.namespace", item, text, "remove namespace", at_key=True)
        elif field not in _META:
            text = f"there is no field {plain(field)} here"
            problems.add(f"metadata.{plain(field)}", item, text, instead(field, _META[:3]), at_key=True)
    wanted = ("namespace", "name") if kind.is_namespaced else ("name",)
    found = {"namespace": "", "name": ""}
    for field in wanted:
        if field not in given:
            text, fix = f"{field} is missing", f"add {field}: {formats.NAME.what}"
            problems.add(f"metadata.{field}", metadata, text, fix, at_key=True)
            continue
        value = read_shape(formats.NAME, given[field], f"metadata.{field}", problems)
        found[field] = "" if value is BROKEN else str(value)
    return found["namespace"], found["name"]


def is_meant_as_own(api_version: str) -> bool:
    """Return whether an apiVersion is ours, another version of ours, or a slip of the pen."""
    group = api_version.partition("/")[0]
    return not api_version or nearest(group, [API_VERSION.partition("/")[0], "outgate"]) is not None
