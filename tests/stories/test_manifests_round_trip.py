"""An object becomes a manifest and the manifest becomes the object, for every object there may be.

`import-script` prints manifests of what it found on a machine, and people put them into the directory unread.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from outgate.model.inbound import InboundAllowance, Protocol
from outgate.model.intent import (
    Announce,
    AnnounceMethod,
    ByteQuota,
    DestinationRule,
    EgressGateway,
    EgressPool,
    EgressTenant,
    Identity,
    InnerInterface,
    InternalDestination,
    NextHopIdentity,
    OnChange,
    PoolClaim,
    RateLimit,
    SourceCheck,
    SourceIdentity,
)
from outgate.model.net import Address, LinkName, Prefix, Span
from outgate.model.selector import LabelExpression, LabelSelector, Operator
from outgate.sources.crd import definition
from outgate.sources.documents import parse
from outgate.sources.dump import dump
from outgate.sources.examples import EXAMPLES
from outgate.sources.tenant_fields import KINDS
from outgate.sources.yaml_writer import to_yaml

HOSTS4 = st.ip_addresses(v=4, network="10.0.0.0/8")
HOSTS6 = st.ip_addresses(v=6, network="2001:db8::/32")
HOSTS = HOSTS4 | HOSTS6
NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?(\.[a-z0-9]{1,9})?", fullmatch=True)
LINKS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,14}", fullmatch=True).filter(
    lambda name: name not in ("all", "default") and not name.startswith("og-")
)
LINK_NAMES = LINKS.map(LinkName)
KEYS = st.from_regex(r"([a-z0-9]{1,9}\.io/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,20}[A-Za-z0-9])?", fullmatch=True)
WORDS = st.from_regex(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,20}[A-Za-z0-9])?)?", fullmatch=True)


def some(item: st.SearchStrategy[Any], least: int = 0, most: int = 3) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(item, min_size=least, max_size=most, unique=True).map(tuple)


def prefix_of(address: Address, length: int) -> Prefix:
    return ip_network((address, min(length, address.max_prefixlen)), strict=False)


PARTS = st.builds(prefix_of, HOSTS, st.integers(1, 128))


@st.composite
def selectors(draw: st.DrawFn) -> LabelSelector:
    labels = tuple(sorted(draw(st.dictionaries(KEYS, WORDS, max_size=3)).items()))
    valued = st.builds(LabelExpression, KEYS, st.sampled_from([Operator.IN, Operator.NOT_IN]), some(WORDS, 1))
    bare = st.builds(LabelExpression, KEYS, st.sampled_from([Operator.EXISTS, Operator.DOES_NOT_EXIST]))
    return LabelSelector(labels, draw(some(valued | bare, 0 if labels else 1)))


@st.composite
def gateways(draw: st.DrawFn) -> EgressGateway:
    links = draw(st.lists(LINK_NAMES, min_size=2, max_size=6, unique=True))
    cut = draw(st.integers(1, len(links) - 1))
    inner = st.sampled_from(links[:cut])
    return EgressGateway(
        name=draw(NAMES),
        inner=tuple(InnerInterface(interface=link, shared_next_hops=draw(some(HOSTS))) for link in links[:cut]),
        uplinks=tuple(links[cut:]),
        cluster_networks=draw(some(PARTS)),
        bypass=draw(some(PARTS)),
        internal_destinations=draw(some(st.builds(InternalDestination, cidr=PARTS, interface=inner))),
        announce=draw(
            st.builds(
                Announce,
                method=st.sampled_from(AnnounceMethod),
                rate_per_s=st.integers(1, 1000),
                probes=st.integers(0, 10),
                probe_interval_s=st.integers(50, 10_000).map(lambda milliseconds: milliseconds / 1000),
            )
        ),
    )


def span_of(first: Address, count: int) -> Span:
    return Span(first=first, last=first + count)


@st.composite
def pools(draw: st.DrawFn) -> EgressPool:
    starts = draw(some(st.integers(0, 0xFFFF), 1, 5))
    bases = draw(st.sampled_from([ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")]))
    ranges = tuple(span_of(bases[start << 8], draw(st.integers(0, 255))) for start in starts)
    return EgressPool(
        name=draw(NAMES),
        ranges=ranges,
        excludes=draw(some(st.builds(span_of, HOSTS, st.integers(0, 9)))),
        allowed_namespaces=draw(st.none() | selectors()),
        quarantine_s=draw(st.integers(0, 30 * 86400)),
    )


def one_a_family(v4: st.SearchStrategy[Any], v6: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(v4) | st.tuples(v6) | st.tuples(v4, v6)


@st.composite
def destination_rules(draw: st.DrawFn, number: int) -> DestinationRule:
    egress = draw(one_a_family(HOSTS4, HOSTS6))
    nets = {4: ip_network(f"198.51.{number}.0/24"), 6: ip_network(f"2001:db8:{number:x}::/48")}
    return DestinationRule(cidrs=tuple(nets[ip.version] for ip in egress), egress_ips=egress)


@st.composite
def tenants(draw: st.DrawFn) -> EgressTenant:
    selector = draw(st.none() | selectors())
    hops = draw(
        one_a_family(st.ip_addresses(v=4, network="192.168.99.0/24"), st.ip_addresses(v=6, network="fd99::/64"))
    )
    identity: Identity = draw(
        st.builds(NextHopIdentity, addresses=st.just(hops), interface=st.none() | LINK_NAMES)
        | st.builds(SourceIdentity, cidrs=some(PARTS, 0 if selector else 1))
    )
    checks = [SourceCheck.NODE_SUBNETS, SourceCheck.OFF, *([SourceCheck.PODS] if selector else [])]
    claim = draw(st.none() | st.builds(PoolClaim, NAMES, st.integers(1, 16)))
    with_port = st.builds(
        InboundAllowance, st.sampled_from([Protocol.TCP, Protocol.UDP, Protocol.SCTP]), st.integers(1, 65535)
    )
    return EgressTenant(
        name=draw(NAMES),
        identity=identity,
        gateway=draw(st.none() | NAMES),
        namespace_selector=selector,
        pod_selector=draw(st.none() | selectors()) if selector else None,
        source_check=draw(st.sampled_from(checks))
        if isinstance(identity, NextHopIdentity)
        else SourceCheck.NODE_SUBNETS,
        egress_ips=() if claim else draw(some(HOSTS, 1, 5)),
        claim=claim,
        uplink=draw(st.none() | LINK_NAMES),
        destinations=tuple(draw(destination_rules(number)) for number in range(draw(st.integers(0, 3)))),
        on_change=draw(st.sampled_from(OnChange)),
        allow_inbound=draw(some(with_port | st.just(InboundAllowance(Protocol.ICMP)))),
        rate=draw(st.none() | st.builds(RateLimit, st.integers(1, 10**9), st.integers(65_536, 10**9))),
        connections=draw(st.none() | st.integers(1, 10**6)),
        quota=draw(st.none() | st.builds(ByteQuota, st.integers(1, 10**15), st.integers(60, 86_400 * 366))),
    )


def fits(value: Any, schema: Mapping[str, Any], path: str) -> list[str]:
    """What a structural schema has against a value; rules in CEL aside."""
    wrong = []
    if "enum" in schema and value not in schema["enum"]:
        wrong.append(f"{path}: {value} is not in {schema['enum']}")
    if schema["type"] == "string" and not (
        schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 0)
        and re.search(schema.get("pattern", ""), value)
    ):
        wrong += [] if "enum" in schema else [f"{path}: {value} does not fit {schema}"]
    if schema["type"] == "integer" and not schema["minimum"] <= value <= schema["maximum"]:
        wrong.append(f"{path}: {value} is out of range")
    if schema["type"] == "array":
        if not schema.get("minItems", 0) <= len(value) <= schema["maxItems"]:
            wrong.append(f"{path}: {len(value)} items")
        wrong += [one for number, item in enumerate(value) for one in fits(item, schema["items"], f"{path}[{number}]")]
    if schema["type"] == "object":
        known = schema.get("properties", {})
        for name, item in value.items():
            inner = known.get(name) or schema.get("additionalProperties")
            wrong += fits(item, inner, f"{path}.{name}") if inner else [f"{path}.{name} is unknown"]
        wrong += [f"{path}.{name} is missing" for name in schema.get("required", ()) if name not in value]
    return wrong


@given(gateways() | pools() | tenants())
def test_an_object_survives_its_manifest_and_the_schema_takes_it(given_object: EgressGateway | EgressPool) -> None:
    manifest = dump(given_object)

    parsed = parse("a.yaml", to_yaml(manifest).encode())

    assert [str(one.finding) for one in parsed.broken] == []
    assert parsed.objects == {manifest["kind"]: (given_object,)}
    version = definition(KINDS[manifest["kind"]])["spec"]["versions"][0]
    assert fits(manifest["spec"], version["schema"]["openAPIV3Schema"]["properties"]["spec"], "spec") == []


def test_a_manifest_says_only_what_somebody_wanted() -> None:
    tenant = EgressTenant(name="ns-blue", identity=SourceIdentity(), claim=PoolClaim("lab"), namespace_selector=None)

    assert dump(tenant)["spec"] == {"identity": {"source": {}}, "fromPool": {"name": "lab"}}


def test_the_examples_of_the_reference_are_valid_and_show_every_field() -> None:
    for kind, text in EXAMPLES.items():
        parsed = parse("a.yaml", text.encode())

        assert parsed.broken == ()
        assert parsed.objects.keys() == {kind}
        for field in KINDS[kind].spec.fields:
            assert field.name in text
