"""A value goes into a bundle and comes out of it: it must be the very same, whatever it is, or be refused.

What comes in may have been written by anybody.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, NewType, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outgate.model.firewall import Firewall
from outgate.model.flow import Flow
from outgate.model.host import Host
from outgate.model.intent import Intent
from outgate.model.ledger import Ledger
from outgate.model.net import Discard, LinkName, OnLink, Route, Rule, Span, TableId, Via
from outgate.model.ruleset import Element
from outgate.model.selector import LabelExpression, Operator
from outgate.model.state import Facts, Reading, Resource
from outgate.model.status import Status
from outgate.model.why import Origin
from outgate.sources.exact import Misread, plain_of, value_of

SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(st.characters(codec="utf-8"), max_size=8),
    int: st.integers(-(2**63), 2**63 - 1),
    bool: st.booleans(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    type(None): st.none(),
    IPv4Address: st.ip_addresses(v=4),
    IPv6Address: st.ip_addresses(v=6),
    IPv4Network: st.builds(
        lambda address, length: ip_network((address, length), strict=False), st.ip_addresses(v=4), st.integers(0, 32)
    ),
    IPv6Network: st.builds(
        lambda address, length: ip_network((address, length), strict=False), st.ip_addresses(v=6), st.integers(0, 128)
    ),
}


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Any value that an annotation of the model allows."""
    if isinstance(kind, NewType):
        return values(kind.__supertype__)
    if kind in SCALARS:
        return SCALARS[kind]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return st.sampled_from(kind)
    if is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        return st.builds(kind, **{part.name: values(hints[part.name]) for part in fields(kind) if part.init})
    return several(kind)


def several(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of a union, a tuple, a set or a mapping."""
    origin: Any = get_origin(kind)
    inside = get_args(kind)
    if origin in (Union, types.UnionType):
        return st.one_of([values(one) for one in inside])
    if origin is tuple and inside[1:] == (...,):
        return st.lists(values(inside[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(values, inside))
    if origin is frozenset:
        return st.frozensets(values(inside[0]), max_size=3)
    assert origin is Mapping, kind
    return st.dictionaries(values(inside[0]), values(inside[1]), max_size=3)


def again(kind: Any, value: object) -> object:
    """The value after it was written as JSON and read."""
    return value_of(kind, msgspec.json.decode(msgspec.json.encode(plain_of(kind, value))))


@settings(max_examples=150)
@given(values(Resource))
def test_a_resource_comes_back_as_itself(resource: Resource) -> None:
    found = again(Resource, resource)

    assert found == resource
    assert type(found) is type(resource)
    assert hash(found) == hash(resource)
    assert str(found) == str(resource)


@pytest.mark.parametrize("kind", [Facts, Reading, Ledger, Firewall, Host, Flow, Status])
def test_what_a_bundle_holds_comes_back_as_itself(kind: type) -> None:
    @settings(max_examples=30)
    @given(values(kind))
    def holds(value: object) -> None:
        assert again(kind, value) == value

    holds()


@settings(max_examples=40)
@given(values(Intent))
def test_an_intent_comes_back_with_the_places_where_it_was_written(intent: Intent) -> None:
    found = again(Intent, intent)

    assert isinstance(found, Intent)
    assert found == intent
    assert [one.origin for one in found.tenants] == [one.origin for one in intent.tenants]
    assert [one.origin for one in found.pods] == [one.origin for one in intent.pods]


@settings(max_examples=40)
@given(values(Reading))
def test_equal_values_are_written_alike(reading: Reading) -> None:
    assert plain_of(Reading, again(Reading, reading)) == plain_of(Reading, reading)


def test_what_looks_alike_stays_what_it_was() -> None:
    link_called_like_an_address = Element("id_link", ("10.132.0.5",), 256)
    address = Element("id_link", (ip_address("10.132.0.5"),), 256)

    assert again(Element, link_called_like_an_address) == link_called_like_an_address
    assert again(Element, address) == address
    assert again(Rule, Rule(priority=1, version=4, action=TableId(254))) != again(
        Rule, Rule(priority=1, version=4, action=Discard.PROHIBIT)
    )


ROUTE = Route(dst=ip_network("10.132.0.0/24"), hop=Via(address=ip_address("192.168.99.21"), link=LinkName("enp1s0")))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"dst": "10.132.0.1/24"}, "dst: '10.132.0.1/24' is no Prefix"),
        ({"dst": "10.132.0.0/255.255.255.0"}, "dst: '10.132.0.0/255.255.255.0' is written as 10.132.0.0/24"),
        ({"dst": 5}, "dst: expected Prefix as text, found 5"),
        ({"metric": "1"}, "metric: expected int, found '1'"),
        ({"metric": True}, "metric: expected int, found True"),
        ({"table": None}, "table: expected int, found None"),
        ({"hop": {"Via": {"address": "192.168.99.21"}}}, "hop.Via: Via lacks link"),
        ({"hop": {"Via": {"address": "192.168.99.21", "link": "a", "_key": "x"}}}, "hop.Via: there is no field '_key'"),
        ({"hop": {"os.system": "true"}}, "hop: expected one of Discard, OnLink, Via, found a mapping"),
        ({"hop": {"Discard": "silently"}}, "hop.Discard: 'silently' is no Discard"),
        ({"hop": {"Discard": []}}, "hop.Discard: a list of 0 is no Discard"),
        ({"colour": "red"}, "there is no field 'colour' in Route"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_place(changed: dict[str, Any], said: str) -> None:
    plain = plain_of(Route, ROUTE)
    assert isinstance(plain, dict)

    with pytest.raises(Misread) as refused:
        value_of(Route, {**plain, **changed})

    assert str(refused.value).startswith(said)


def test_a_place_deep_inside_is_named_in_full() -> None:
    plain = msgspec.json.decode(
        msgspec.json.encode(plain_of(Reading, Reading(facts=Facts(), actual=frozenset([ROUTE]))))
    )
    plain["actual"][0]["Route"]["hop"]["Via"]["link"] = 7

    with pytest.raises(Misread, match=r"^actual\[0\]\.Route\.hop\.Via\.link: expected str, found 7$"):
        value_of(Reading, plain)


def test_a_field_that_an_older_version_did_not_know_takes_its_default() -> None:
    plain = plain_of(Route, ROUTE)
    assert isinstance(plain, dict)
    del plain["metric"], plain["table"]

    assert value_of(Route, plain) == ROUTE


def test_nothing_may_stand_twice_where_one_can_stand() -> None:
    twice = [plain_of(Resource, ROUTE)] * 2

    with pytest.raises(Misread, match="twice in a set"):
        value_of(frozenset[Resource], twice)
    with pytest.raises(Misread, match="twice in a mapping"):
        value_of(Mapping[IPv4Address, int], [["10.0.0.1", 1], ["10.0.0.1", 2]])


def test_values_that_nobody_could_tell_apart_are_refused_when_they_are_described() -> None:
    with pytest.raises(TypeError, match="can not be told apart"):
        value_of(LinkName | str, "enp1s0")
    with pytest.raises(TypeError, match="nothing that the model is made of"):
        value_of(bytes, "enp1s0")
    with pytest.raises(TypeError, match="none of"):
        plain_of(Via | OnLink, Origin())


def test_sums_of_the_model_keep_their_kind() -> None:
    for part in (ip_address("fd01::5"), Span(first=ip_address("10.0.0.1"), last=ip_address("10.0.0.9")), 5, "enp1s0"):
        assert again(Element, Element("a", (part,))) == Element("a", (part,))
    assert again(LabelExpression, LabelExpression("app", Operator.EXISTS)) == LabelExpression("app", Operator.EXISTS)
