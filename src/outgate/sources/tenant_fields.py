"""The fields of an EgressTenant; the other kinds, and what a field is, stand in `fields`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from outgate.model.intent import (
    ByteQuota,
    DestinationRule,
    EgressClaim,
    EgressTenant,
    NextHopIdentity,
    OnChange,
    PoolClaim,
    RateLimit,
    SourceCheck,
    SourceIdentity,
)
from outgate.sources import formats
from outgate.sources.fields import GATEWAY, INBOUND, POOL, SELECTOR
from outgate.sources.routing_fields import ROUTING
from outgate.sources.shape import Choice, Field, Kind, Many, OneOf, Record, Rule, Whole
from outgate.sources.values import families

Given = Mapping[str, Any]

_NEXT_HOP = Record(
    of=NextHopIdentity,
    fields=(
        Field(
            name="addresses",
            attribute="addresses",
            shape=Many(item=formats.HOST, least=1, most=2, per_family=1),
            text="The next hop that the tenant's nodes use, one address a family; held on a link of its own.",
            required=True,
        ),
        Field(
            name="interface",
            attribute="interface",
            shape=formats.LINK,
            text="The inner NIC on which the addresses are held.",
            absent="the inner NIC whose connected prefix holds them, else the first",
        ),
    ),
)

_SOURCE = Record(
    of=SourceIdentity,
    fields=(
        Field(
            name="cidrs",
            attribute="cidrs",
            shape=Many(item=formats.PART, most=1024),
            text="Sources besides the selected pods: machines outside Kubernetes.",
        ),
    ),
)

_IDENTITY = OneOf(
    options=(
        Field(
            name="nextHop",
            attribute="next_hop",
            shape=_NEXT_HOP,
            text="The tenant is told by the next hop that its nodes use.",
        ),
        Field(
            name="source",
            attribute="source",
            shape=_SOURCE,
            text="The tenant is told by the source address: that of its selected pods, and `cidrs`.",
        ),
    ),
)

_CLAIM = Record(
    of=PoolClaim,
    fields=(
        Field(name="name", attribute="pool", shape=formats.NAME, text="The EgressPool.", required=True),
        Field(
            name="count",
            attribute="count",
            shape=Whole(least=1, most=16, unit="addresses"),
            text="How many addresses.",
            default=1,
        ),
    ),
)

_DESTINATION = Record(
    of=DestinationRule,
    fields=(
        Field(
            name="cidrs",
            attribute="cidrs",
            shape=Many(item=formats.PREFIX, least=1, most=256),
            text="The destinations. The longest prefix of all entries wins.",
            required=True,
        ),
        Field(
            name="egressIPs",
            attribute="egress_ips",
            shape=Many(item=formats.HOST, least=1, most=2, per_family=1),
            text="The egress IP to use there, one a family.",
            required=True,
        ),
    ),
    rules=(
        Rule(
            text="has egress IPs of other address families than its cidrs",
            fix="give each family of the cidrs one egress IP, and no other",
            cel="self.cidrs.exists(c, c.contains(':')) == self.egressIPs.exists(a, a.contains(':'))"
            " && self.cidrs.exists(c, !c.contains(':')) == self.egressIPs.exists(a, !a.contains(':'))",
            holds=lambda given: families(given["cidrs"]) == families(given["egress_ips"]),
            at="egressIPs",
        ),
    ),
)

_RATE = Record(
    of=RateLimit,
    fields=(
        Field(
            name="bytesPerSecond",
            attribute="bytes_per_s",
            shape=Whole(least=1, most=125_000_000_000, unit="bytes per second"),
            text="What may pass in the long run, in each direction.",
            required=True,
        ),
        Field(
            name="burstBytes",
            attribute="burst_bytes",
            shape=Whole(least=65_536, most=4_294_967_295, unit="bytes"),
            text="What may pass at once. Less than 65536 would stop packets that the NIC has merged (GRO).",
            default=262_144,
        ),
    ),
)

_QUOTA = Record(
    of=ByteQuota,
    fields=(
        Field(
            name="bytes",
            attribute="limit_bytes",
            shape=Whole(least=1, most=(1 << 53) - 1, unit="bytes"),  # schemas compare as floating point
            text="What may pass in a period, both directions together.",
            required=True,
        ),
        Field(
            name="period",
            attribute="period_s",
            shape=formats.duration(60, 366 * 86400),
            text="After this time the quota is full again.",
            required=True,
        ),
    ),
)


def _named_once(given: Given) -> bool:
    cidrs = [cidr for rule in given["destinations"] for cidr in rule.cidrs]
    return len(cidrs) == len(set(cidrs))


def _hop_is_no_egress_ip(given: Given) -> bool:
    identity = given["identity"]
    hops = identity.addresses if isinstance(identity, NextHopIdentity) else ()
    return not set(hops) & {*given["egress_ips"], *(ip for rule in given["destinations"] for ip in rule.egress_ips)}


_RULES = (
    Rule(
        text="exactly one of egressIPs and fromPool must be there",
        fix="name the addresses under egressIPs, or a pool under fromPool",
        cel="(has(self.egressIPs) && size(self.egressIPs) > 0) != has(self.fromPool)",
        holds=lambda given: bool(given["egress_ips"]) != (given["claim"] is not None),
    ),
    Rule(
        text="selects nobody: a source identity needs a namespaceSelector or cidrs",
        fix="add namespaceSelector, or identity.source.cidrs",
        cel="!has(self.identity.source) || has(self.namespaceSelector)"
        " || (has(self.identity.source.cidrs) && size(self.identity.source.cidrs) > 0)",
        holds=lambda given: (
            isinstance(given["identity"], NextHopIdentity)
            or given["namespace_selector"] is not None
            or bool(given["identity"].cidrs)
        ),
        at="identity",
    ),
    Rule(
        text="selects pods, but no namespaces",
        fix="add namespaceSelector",
        cel="!has(self.podSelector) || has(self.namespaceSelector)",
        holds=lambda given: given["pod_selector"] is None or given["namespace_selector"] is not None,
        at="podSelector",
    ),
    Rule(
        text="is for tenants with a next hop; a source identity checks the source by itself",
        fix="remove sourceCheck, or use identity.nextHop",
        cel="!has(self.sourceCheck) || has(self.identity.nextHop)",
        holds=lambda given: given["source_check"] is None or isinstance(given["identity"], NextHopIdentity),
        at="sourceCheck",
    ),
    Rule(
        text="can not compare with pods while no namespaces are selected",
        fix="add namespaceSelector, or use nodeSubnets",
        cel="!has(self.sourceCheck) || self.sourceCheck != 'pods' || has(self.namespaceSelector)",
        holds=lambda given: given["source_check"] is not SourceCheck.PODS or given["namespace_selector"] is not None,
        at="sourceCheck",
    ),
    Rule(
        text="names an address that is an egress IP of the same tenant",
        fix="use an address of the inner network as next hop and one of the outer network as egress IP",
        cel="!has(self.identity.nextHop) || !has(self.egressIPs)"
        " || !self.egressIPs.exists(e, e in self.identity.nextHop.addresses)",
        holds=_hop_is_no_egress_ip,
        at="identity",
    ),
    Rule(
        text="names a prefix twice, so that two egress IPs would be right",
        fix="leave each prefix in one entry",
        cel="",
        holds=_named_once,
        at="destinations",
    ),
)

_TENANT = Record(
    of=EgressTenant,
    fields=(
        Field(
            name="gateway",
            attribute="gateway",
            shape=formats.NAME,
            text="The EgressGateway that serves the tenant.",
            absent="the only one there is",
        ),
        Field(
            name="namespaceSelector",
            attribute="namespace_selector",
            shape=SELECTOR,
            text="The namespaces of the tenant, by their labels.",
            absent="none; enough for a next hop without sourceCheck: pods, and for a source identity with cidrs",
        ),
        Field(
            name="podSelector",
            attribute="pod_selector",
            shape=SELECTOR,
            text="Which pods of these namespaces belong to the tenant, by their labels.",
            absent="all pods of the namespaces",
        ),
        Field(
            name="identity",
            attribute="identity",
            shape=_IDENTITY,
            text="How the gateway tells this tenant's packets from others.",
            required=True,
        ),
        Field(
            name="sourceCheck",
            attribute="source_check",
            shape=Choice(
                of=SourceCheck,
                meanings={
                    SourceCheck.PODS: "addresses of the selected pods only; a new pod waits until outgate has seen it",
                    SourceCheck.NODE_SUBNETS: "addresses of the nodes' pod subnets",
                    SourceCheck.OFF: "any address (for kubectl in quotes, because it reads a plain off as false)",
                },
            ),
            text="Which sources may use the tenant's next hop. Others are refused and counted.",
            absent="nodeSubnets, for a tenant with a next hop",
        ),
        Field(
            name="egressIPs",
            attribute="egress_ips",
            shape=Many(item=formats.HOST, most=32, per_family=16),
            text="The addresses that the outside sees.",
        ),
        Field(
            name="fromPool",
            attribute="claim",
            shape=_CLAIM,
            text="Takes the addresses from a pool instead; they stay the same as long as the tenant exists.",
        ),
        Field(
            name="uplink",
            attribute="uplink",
            shape=formats.LINK,
            text="The uplink on which the egress IPs are held.",
            absent="the uplink whose connected prefix holds the address, else the first",
        ),
        Field(
            name="destinations",
            attribute="destinations",
            shape=Many(item=_DESTINATION, most=64),
            text="Other egress IPs for some destinations.",
        ),
        Field(
            name="onChange",
            attribute="on_change",
            shape=Choice(
                of=OnChange,
                meanings={
                    OnChange.DRAIN: "they live on with it, and new ones get the new address",
                    OnChange.FLUSH: "they end at once, with an error at the client",
                },
            ),
            text="What happens to live flows when an egress IP is taken from the tenant.",
            default="drain",
        ),
        Field(
            name="allowInbound",
            attribute="allow_inbound",
            shape=Many(item=INBOUND, most=64),
            text="New flows from outside to the egress IPs that the gateway machine itself may answer.",
            absent="none",
        ),
        Field(name="rate", attribute="rate", shape=_RATE, text="A limit of speed.", absent="no limit"),
        Field(
            name="connections",
            attribute="connections",
            shape=Whole(least=1, most=16_777_216, unit="connections"),
            text="How many connections may live at once.",
            absent="no limit",
        ),
        Field(name="quota", attribute="quota", shape=_QUOTA, text="A limit of bytes per period.", absent="no limit"),
    ),
    rules=_RULES,
)

TENANT = Kind(
    name="EgressTenant",
    plural="egresstenants",
    short="ogt",
    text="A group of namespaces with its own egress IPs on a gateway.",
    spec=_TENANT,
    columns=(
        ("Gateway", "string", ".spec.gateway", "The EgressGateway that serves the tenant"),
        ("Next hop", "string", ".spec.identity.nextHop.addresses", "The next hop that the tenant's nodes use"),
        ("Egress IPs", "string", ".spec.egressIPs", "The addresses that the outside sees"),
        ("Pool", "string", ".spec.fromPool.name", "The pool that the addresses come from"),
    ),
)

_EGRESS_CLAIM = Record(
    of=EgressClaim,
    fields=(
        Field(name="fromPool", attribute="claim", shape=_CLAIM, text="The pool, and how many.", required=True),
        Field(
            name="gateway",
            attribute="gateway",
            shape=formats.NAME,
            text="The EgressGateway.",
            absent="the only one",
        ),
        Field(
            name="podSelector",
            attribute="pod_selector",
            shape=SELECTOR,
            text="Which pods of the namespace.",
            absent="all of them",
        ),
    ),
)

CLAIM = Kind(
    name="EgressClaim",
    plural="egressclaims",
    short="ogc",
    text="What a namespace claims for its own pods; the cluster role makes an EgressTenant of it, told by its source.",
    spec=_EGRESS_CLAIM,
    columns=(
        ("Pool", "string", ".spec.fromPool.name", "The pool that the addresses come from"),
        ("Egress IPs", "string", ".status.egressIPs", "The addresses that the outside sees"),
    ),
    is_namespaced=True,
)

KINDS: Mapping[str, Kind] = {kind.name: kind for kind in (GATEWAY, TENANT, POOL, CLAIM, ROUTING)}
