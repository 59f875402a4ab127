"""The fields of an EgressRouting: how EgressIPs are routed."""

from __future__ import annotations

from outgate.model.intent import EgressRouting
from outgate.model.routing import NicGateway, OnUnassigned, Semantics, SnatScope, Stance
from outgate.sources import formats
from outgate.sources.fields import INBOUND
from outgate.sources.shape import Choice, Field, Flag, Kind, Many, Record, Rule

_AS_DEFAULT = "as the EgressRouting `default` has it, and there"

_NIC_GATEWAY = Record(
    of=NicGateway,
    fields=(
        Field(
            name="interface",
            attribute="link",
            shape=formats.LINK,
            text="The secondary NIC, on whatever node.",
            required=True,
        ),
        Field(
            name="router",
            attribute="router",
            shape=formats.HOST,
            text="The next hop on its LAN.",
            absent="the NIC itself: every destination is looked for on its LAN, as on point-to-point links",
        ),
    ),
)

_ROUTING = Record(
    of=EgressRouting,
    fields=(
        Field(
            name="egressIPs",
            attribute="egress_ips",
            shape=Many(item=formats.NAME, most=1024),
            text="The EgressIPs that it is about.",
            absent="all that no other EgressRouting names; its own name is `default` then",
        ),
        Field(
            name="stance",
            attribute="stance",
            shape=Choice(
                of=Stance,
                meanings={
                    Stance.OBSERVE: "nothing is written to any node; only in `default`",
                    Stance.ASSIST: "OVN-Kubernetes' EgressIP stays on, and what it lacks is added",
                    Stance.OWN: "its EgressIP feature is off, and outgate does all of it",
                },
            ),
            text="How much of the data path outgate writes; a node's role may be allowed less.",
            absent="`assist`",
        ),
        Field(
            name="semantics",
            attribute="semantics",
            shape=Choice(
                of=Semantics,
                meanings={
                    Semantics.LEGACY: "as OVN-Kubernetes routes EgressIPs today",
                    Semantics.AUTO: "by gateway mode and interface, the host's routes honoured",
                },
            ),
            text="Whose rules decide the path.",
            absent=f"{_AS_DEFAULT} `legacy`",
        ),
        Field(
            name="honorHostRoutes",
            attribute="honor_host_routes",
            shape=Flag(),
            text="With `auto`, in shared gateway mode: whether the gateway router follows the host's routes by br-ex.",
            absent=f"{_AS_DEFAULT} `false`",
        ),
        Field(
            name="snatScope",
            attribute="snat_scope",
            shape=Choice(
                of=SnatScope,
                meanings={
                    SnatScope.ANY: "by whatever link the host's routes say, as with openshift-sdn",
                    SnatScope.HOSTING_LINK: "by the link that has the egress IP only",
                },
            ),
            text="By which links a packet may leave with an egress IP of the primary NIC.",
            absent=f"{_AS_DEFAULT} `any`",
        ),
        Field(
            name="onUnassigned",
            attribute="on_unassigned",
            shape=Choice(
                of=OnUnassigned,
                meanings={
                    OnUnassigned.NODE_IP: "they leave as if the pod had no egress IP, as OVN-Kubernetes does",
                    OnUnassigned.DROP: "they are dropped, as with openshift-sdn",
                },
            ),
            text="What becomes of a pod's packets while no node has its egress IP.",
            absent=f"{_AS_DEFAULT} `node-ip`",
        ),
        Field(
            name="allowInbound",
            attribute="allow_inbound",
            shape=Many(item=INBOUND, most=64),
            text="New flows from outside to the egress IPs that the node may answer itself.",
            absent="as `default` has it, and there none",
        ),
        Field(
            name="defaultGateways",
            attribute="gateways",
            shape=Many(item=_NIC_GATEWAY, most=64),
            text="What a secondary NIC without a default route uses as one; only in `default`.",
            absent="none: what no route of the NIC leads to is dropped",
        ),
    ),
    rules=(
        Rule(
            text="stance and defaultGateways are the same for all EgressIPs",
            fix="give them in the EgressRouting `default`, which names no EgressIPs",
            cel="!(has(self.egressIPs) && size(self.egressIPs) > 0)"
            " || !(has(self.stance) || has(self.defaultGateways))",
            holds=lambda given: not given["egress_ips"] or not (given["stance"] or given["gateways"]),
            at="egressIPs",
        ),
    ),
)

ROUTING = Kind(
    name="EgressRouting",
    plural="egressroutings",
    short="ogr",
    text="How EgressIPs are routed: by whose rules, and what is written for that.",
    spec=_ROUTING,
    columns=(
        ("EgressIPs", "string", ".spec.egressIPs", "The EgressIPs that it is about; none: all others"),
        ("Stance", "string", ".spec.stance", "How much outgate writes"),
        ("Semantics", "string", ".spec.semantics", "Whose rules decide the path"),
    ),
)
