"""The fields of our three kinds, outgate.io/v1alpha1: the one place where they are described.

A new field is a line here and an attribute in the model; check, schema, reference and dump follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from outgate.model.inbound import InboundAllowance, Protocol
from outgate.model.intent import (
    Announce,
    AnnounceMethod,
    EgressGateway,
    EgressPool,
    InnerInterface,
    InternalDestination,
)
from outgate.model.selector import LabelExpression, LabelSelector, Operator
from outgate.sources import formats
from outgate.sources.shape import Choice, Field, Kind, Many, Pairs, Record, Rule, Whole

GROUP = "outgate.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"


def _operator_fits_values(given: Mapping[str, Any]) -> bool:
    return (given["operator"] in (Operator.IN, Operator.NOT_IN)) == bool(given["values"])


_EXPRESSION = Record(
    of=LabelExpression,
    fields=(
        Field(name="key", attribute="key", shape=formats.LABEL_KEY, text="The label that is looked at.", required=True),
        Field(
            name="operator",
            attribute="operator",
            shape=Choice(
                of=Operator,
                meanings={
                    Operator.IN: "the label has one of the values",
                    Operator.NOT_IN: "the label has none of the values, or is absent",
                    Operator.EXISTS: "the label is there",
                    Operator.DOES_NOT_EXIST: "the label is not there",
                },
            ),
            text="How the label is looked at.",
            required=True,
        ),
        Field(
            name="values",
            attribute="values",
            shape=Many(item=formats.LABEL_VALUE, most=256),
            text="The values for In and NotIn.",
        ),
    ),
    rules=(
        Rule(
            text="In and NotIn need values, Exists and DoesNotExist take none",
            fix="add values, or remove them",
            cel="(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
            holds=_operator_fits_values,
            at="values",
        ),
    ),
)

SELECTOR = Record(
    of=LabelSelector,
    fields=(
        Field(
            name="matchLabels",
            attribute="match_labels",
            shape=Pairs(key=formats.LABEL_KEY, value=formats.LABEL_VALUE, most=64),
            text="Labels that must all be there with these values.",
        ),
        Field(
            name="matchExpressions",
            attribute="expressions",
            shape=Many(item=_EXPRESSION, most=32),
            text="Conditions that must all hold.",
        ),
    ),
    rules=(
        Rule(
            text="is an empty selector, which selects nothing here (elsewhere it may select everything)",
            fix="add matchLabels or matchExpressions, or remove the selector",
            cel="(has(self.matchLabels) && size(self.matchLabels) > 0)"
            " || (has(self.matchExpressions) && size(self.matchExpressions) > 0)",
            holds=lambda given: bool(given["match_labels"] or given["expressions"]),
        ),
    ),
)

INBOUND = Record(
    of=InboundAllowance,
    fields=(
        Field(
            name="protocol",
            attribute="protocol",
            shape=Choice(
                of=Protocol,
                meanings={
                    Protocol.TCP: "TCP, with a port",
                    Protocol.UDP: "UDP, with a port",
                    Protocol.SCTP: "SCTP, with a port",
                    Protocol.ICMP: "ICMP and ICMPv6, by the address's family",
                },
            ),
            text="The protocol.",
            required=True,
        ),
        Field(
            name="port",
            attribute="port",
            shape=Whole(least=1, most=65535),
            text="The destination port, for all protocols but ICMP.",
        ),
    ),
    rules=(
        Rule(
            text="needs a port, or has one although ICMP knows none",
            fix="give TCP, UDP and SCTP a port, and ICMP none",
            cel="(self.protocol == 'ICMP') == !has(self.port)",
            holds=lambda given: (given["protocol"] is Protocol.ICMP) == (given["port"] is None),
        ),
    ),
)

_INNER = Record(
    of=InnerInterface,
    fields=(
        Field(
            name="interface",
            attribute="interface",
            shape=formats.LINK,
            text="A NIC towards the cluster nodes. All that enters by it is protected.",
            required=True,
        ),
        Field(
            name="sharedNextHops",
            attribute="shared_next_hops",
            shape=Many(item=formats.HOST, most=16),
            text="Addresses of outgate on this NIC (/32, /128): the next hop that tenants with a source identity use.",
        ),
    ),
)

_INTERNAL = Record(
    of=InternalDestination,
    fields=(
        Field(
            name="cidr",
            attribute="cidr",
            shape=formats.PART,
            text="The destination, for instance an API server or a DNS server.",
            required=True,
        ),
        Field(
            name="interface",
            attribute="interface",
            shape=formats.LINK,
            text="The inner NIC behind which it is.",
            required=True,
        ),
    ),
)

_ANNOUNCE = Record(
    of=Announce,
    fields=(
        Field(
            name="method",
            attribute="method",
            shape=Choice(
                of=AnnounceMethod,
                meanings={
                    AnnounceMethod.LAYER2: "gratuitous ARP and unsolicited neighbour advertisements",
                    AnnounceMethod.NONE: "nothing is sent; somebody else makes the addresses known",
                },
            ),
            text="How neighbours learn where an address is.",
            default="Layer2",
        ),
        Field(
            name="ratePerSecond",
            attribute="rate_per_s",
            shape=Whole(least=1, most=1000, unit="frames per second"),
            text="How fast announcements are sent, so that thousands of tenants do not flood the LAN.",
            default=50,
        ),
        Field(
            name="probes",
            attribute="probes",
            shape=Whole(least=0, most=10),
            text="How often an address is asked for before it is claimed first (RFC 5227, RFC 4862). 0 claims unasked.",
            default=3,
        ),
        Field(
            name="probeIntervalMilliseconds",
            attribute="probe_interval_s",
            shape=Whole(least=50, most=10_000, unit="milliseconds", scale=1000),
            text="The time between two probes of an address.",
            default=300,
        ),
    ),
)


def _interfaces(given: Mapping[str, Any]) -> set[str]:
    return {inner.interface for inner in given["inner"]}


_GATEWAY = Record(
    of=EgressGateway,
    fields=(
        Field(
            name="inner",
            attribute="inner",
            shape=Many(item=_INNER, least=1, most=8),
            text="The NICs towards the cluster.",
            required=True,
        ),
        Field(
            name="uplinks",
            attribute="uplinks",
            shape=Many(item=formats.LINK, least=1, most=8),
            text="The NICs towards the outside. Egress IPs are held there.",
            required=True,
        ),
        Field(
            name="clusterNetworks",
            attribute="cluster_networks",
            shape=Many(item=formats.PART, most=64),
            text="The pod networks of the cluster, besides those of the Network object and of the nodes.",
        ),
        Field(
            name="bypass",
            attribute="bypass",
            shape=Many(item=formats.PART, most=256),
            text="Sources behind an inner NIC that are not protected: other machines that route through this one.",
        ),
        Field(
            name="internalDestinations",
            attribute="internal_destinations",
            shape=Many(item=_INTERNAL, most=256),
            text="Destinations on the inner side that tenants may reach untranslated, on exactly that NIC.",
        ),
        Field(
            name="announce",
            attribute="announce",
            shape=_ANNOUNCE,
            text="How addresses are probed and made known.",
            absent="the defaults of its fields",
        ),
    ),
    rules=(
        Rule(
            text="names a NIC twice",
            fix="write one entry a NIC",
            cel="self.inner.all(i, self.inner.exists_one(j, j.interface == i.interface))",
            holds=lambda given: len(_interfaces(given)) == len(given["inner"]),
            at="inner",
        ),
        Rule(
            text="names a NIC that is inner too; one is protected, the other is outside",
            fix="give the uplink a NIC (or a VLAN interface) of its own",
            cel="!self.uplinks.exists(u, self.inner.exists(i, i.interface == u))",
            holds=lambda given: not _interfaces(given) & set(given["uplinks"]),
            at="uplinks",
        ),
        Rule(
            text="names an interface that is not inner",
            fix="use one of the interfaces under spec.inner",
            cel="!has(self.internalDestinations)"
            " || self.internalDestinations.all(d, self.inner.exists(i, i.interface == d.interface))",
            holds=lambda given: {d.interface for d in given["internal_destinations"]} <= _interfaces(given),
            at="internalDestinations",
        ),
    ),
)

GATEWAY = Kind(
    name="EgressGateway",
    plural="egressgateways",
    short="ogw",
    text="A machine outside the cluster that gives each tenant its own egress IP.",
    spec=_GATEWAY,
    columns=(
        ("Inner", "string", ".spec.inner[*].interface", "NICs towards the cluster"),
        ("Uplinks", "string", ".spec.uplinks", "NICs towards the outside"),
    ),
)


def _disjoint(given: Mapping[str, Any]) -> bool:
    spans = sorted(given["ranges"], key=lambda span: (span.first.version, int(span.first)))
    return all(
        left.last.version != right.first.version or int(left.last) < int(right.first) for left, right in pairwise(spans)
    )


_POOL = Record(
    of=EgressPool,
    fields=(
        Field(
            name="ranges",
            attribute="ranges",
            shape=Many(item=formats.HOST_SPAN, least=1, most=64),
            text="The addresses of the pool.",
            required=True,
        ),
        Field(
            name="excludes",
            attribute="excludes",
            shape=Many(item=formats.SPAN, most=256),
            text="Addresses within the ranges that nobody gets.",
        ),
        Field(
            name="allowedNamespaces",
            attribute="allowed_namespaces",
            shape=SELECTOR,
            text="Who may claim: tenants all of whose namespaces match.",
            absent="any tenant",
        ),
        Field(
            name="quarantine",
            attribute="quarantine_s",
            shape=formats.duration(0, 30 * 86400),
            text="How long a released address rests before another tenant gets it, so that nobody inherits its flows.",
            default="5m",
        ),
    ),
    rules=(
        Rule(
            text="has ranges that overlap",
            fix="write each address once",
            cel="",
            holds=_disjoint,
            at="ranges",
        ),
    ),
)

POOL = Kind(
    name="EgressPool",
    plural="egresspools",
    short="ogp",
    text="Addresses that tenants may claim without naming them.",
    spec=_POOL,
    columns=(("Ranges", "string", ".spec.ranges", "Addresses of the pool"),),
)
