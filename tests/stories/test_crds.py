"""The same kinds can live in a cluster: what `kubectl apply -k deploy/crds` installs says what the files say.

The definitions are made from one description of the fields; here it is shown that they are complete, bounded (the API
server must be able to estimate what a rule costs), and those that are committed.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import pytest

from outgate.sources.crd import definition
from outgate.sources.documents import parse
from outgate.sources.examples import EXAMPLES
from outgate.sources.shape import MISSING, Field, Many, OneOf, Record, Shape
from outgate.sources.tenant_fields import KINDS
from outgate.sources.yaml_reader import read_yaml
from tools import deploy

SCHEMAS = {name: definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for name, kind in KINDS.items()}


def schemas_in(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from schemas_in(inner, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if name in schema:
            yield from schemas_in(schema[name], f"{path}[]")


ALL = [one for name, schema in SCHEMAS.items() for one in schemas_in(schema["properties"]["spec"], name)]


def records_in(shape: Shape) -> Iterator[Record]:
    if isinstance(shape, Record):
        yield shape
    inner: tuple[Field, ...] = ()
    match shape:
        case Record(fields=inner) | OneOf(options=inner):
            for field in inner:
                yield from records_in(field.shape)
        case Many(item=item):
            yield from records_in(item)
        case _:
            pass


def test_what_is_committed_is_what_the_description_makes() -> None:
    old = [str(path) for path, text in (deploy.generated() | deploy.charted()).items() if path.read_text() != text]

    assert old == [], "run `make docs`"


def test_the_definitions_are_yaml_that_a_strict_reader_takes() -> None:
    for path, text in deploy.generated().items():
        if path.parent.name == "crds":
            assert len(list(read_yaml(text.encode()))) == 1


@pytest.mark.parametrize("name", KINDS)
def test_a_definition_is_named_and_served_as_kubernetes_wants(name: str) -> None:
    made = definition(KINDS[name])
    names, (version,) = made["spec"]["names"], made["spec"]["versions"]

    assert made["metadata"]["name"] == f"{names['plural']}.outgate.io"
    scope = "Namespaced" if name == "EgressClaim" else "Cluster"
    assert (made["spec"]["scope"], version["name"], version["storage"]) == (scope, "v1alpha1", True)
    assert version["subresources"] == {"status": {}}
    assert names["categories"] == ["outgate"]
    columns = [column["name"] for column in version["additionalPrinterColumns"]]
    assert columns[-3:] == ["Accepted", "Programmed", "Age"]


@pytest.mark.parametrize("name", KINDS)
def test_conditions_are_a_map_by_type_with_the_fields_of_kubernetes(name: str) -> None:
    conditions = SCHEMAS[name]["properties"]["status"]["properties"]["conditions"]

    assert (conditions["x-kubernetes-list-type"], conditions["x-kubernetes-list-map-keys"]) == ("map", ["type"])
    assert set(conditions["items"]["properties"]) == {
        *("type", "status", "observedGeneration", "lastTransitionTime", "reason", "message"),
    }
    assert "observedGeneration" in SCHEMAS[name]["properties"]["status"]["properties"]


@pytest.mark.parametrize(("path", "schema"), ALL, ids=[path for path, _ in ALL])
def test_everything_is_typed_bounded_and_described(path: str, schema: dict[str, Any]) -> None:
    match schema["type"]:
        case "string":
            assert "enum" in schema or {"maxLength", "pattern"} <= set(schema)
        case "array":
            assert "maxItems" in schema
        case "integer":
            assert {"minimum", "maximum"} <= set(schema)
            assert schema["maximum"] <= 2**53 - 1, "schemas compare as floating point"
        case "object":
            assert "properties" in schema or {"additionalProperties", "maxProperties"} <= set(schema)
    if not path.endswith("[]"):
        assert schema["description"].endswith(".")


def test_patterns_are_anchored_and_compile() -> None:
    for _, schema in ALL:
        pattern = schema.get("pattern", "^$")
        re.compile(pattern)
        assert (pattern[0], pattern[-1]) == ("^", "$")


def test_rules_use_no_function_that_came_with_kubernetes_1_31() -> None:
    rules = [rule["rule"] for _, schema in ALL for rule in schema.get("x-kubernetes-validations", ())]

    assert len(rules) >= 15
    assert not [rule for rule in rules if re.search(r"\b(ip|cidr|isIP|isCIDR)\(", rule)]


def test_every_rule_of_a_description_has_a_sentence_and_a_cure() -> None:
    for kind in KINDS.values():
        for record in records_in(kind.spec):
            for rule in record.rules:
                assert rule.text
                assert rule.fix
                assert not rule.at or rule.at in [field.name for field in record.fields]


def test_every_attribute_of_the_model_can_be_written_in_a_manifest() -> None:
    for kind in KINDS.values():
        for record in records_in(kind.spec):
            assert isinstance(record.of, type)
            in_model = {field.name for field in dataclasses.fields(record.of)} - {
                "name",
                "namespace",
                "origin",
                "served",
                "served_by",
                "allocated",
            }
            assert {field.attribute for field in record.fields} == in_model


def test_every_default_is_the_models_own() -> None:
    for kind in KINDS.values():
        for record in records_in(kind.spec):
            assert isinstance(record.of, type)
            in_model = {field.name: field.default for field in dataclasses.fields(record.of)}
            for field in record.fields:
                made = in_model[field.attribute]
                if field.default is not MISSING and made is not dataclasses.MISSING:
                    shown = getattr(made, "value", made)
                    scaled = round(shown * 1000) if field.name.endswith("Milliseconds") else shown
                    assert scaled == (300 if field.default == "5m" else field.default), field.name


def test_the_reference_names_every_field_and_shows_valid_examples() -> None:
    page = next(text for path, text in deploy.generated().items() if path.name == "kinds.md")

    for kind, text in EXAMPLES.items():
        assert text.strip() in page
        assert parse("example.yaml", text.encode()).broken == ()
        for record in records_in(KINDS[kind].spec):
            for field in record.fields:
                assert f".{field.name}`" in page
