"""Which sizes of packets lie on the way of a decision, and what becomes of answers that are too large for the pod.

The pods' MTU is that of the management port. In shared gateway mode nothing between the NIC and the pod cuts a packet,
and with OVN 23.03 its sender hears nothing. In local mode br-ex hands large answers to the kernel, and so does every
path by the host; the kernel cuts what may be cut, and tells the sender of the rest. Source: bridgeflows.go of
OVN-Kubernetes (2026); packets in the laboratory, but for br-ex in local mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from outgate.model.egress_ip import Decision, Path
from outgate.model.nics import GatewayMode
from outgate.model.why import Finding
from outgate.plan.egress_ip import BRIDGE, MANAGEMENT_PORT, EgressNodeFacts

_GENEVE_BYTES = {4: 58, 6: 78}  # what the tunnel between nodes takes of each packet, by the version that carries it
_TOLD = "the sender is told (ICMP: fragmentation needed, or packet too big); where a firewall drops that, they hang"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The MTUs on the way, what happens to large answers, and which MTU does not fit the others."""

    mtu: str
    large: str
    findings: tuple[Finding, ...] = ()


def sizes(decision: Decision, facts: EgressNodeFacts, *, is_here: bool) -> Sizes:
    """Return them for a decision; `is_here`: the pod runs on the egress node, and no tunnel lies between."""
    links = facts.host.links
    pods = links[MANAGEMENT_PORT].mtu if MANAGEMENT_PORT in links else 0
    out = _mtu_out(decision, facts)
    parts = [f"pods {pods} ({MANAGEMENT_PORT})"] if pods else []
    parts += [f"{decision.link} {out}"] if out else []
    if not is_here:
        parts.append(f"between the nodes geneve takes {_tunnel_bytes(facts)} bytes of {BRIDGE}'s")
    return Sizes(
        mtu=", ".join(parts) or "not known",
        large=_large(decision, facts, pods) if decision.leaves else "",
        findings=tuple(_misfits(decision, facts, pods, is_here=is_here)),
    )


def _large(decision: Decision, facts: EgressNodeFacts, pods: int) -> str:
    more = f"of more than {pods} bytes" if pods else "larger than the pods' MTU"
    if decision.path is Path.GATEWAY_ROUTER and facts.node.mode is not GatewayMode.LOCAL:
        return f"answers {more} are lost: nobody cuts them, and their sender may not be told"
    where = f"{BRIDGE} hands them to the host, which" if decision.path is Path.GATEWAY_ROUTER else "the host"
    return f"answers {more}: {where} cuts those that may be cut; of the others {_TOLD}"


def _misfits(decision: Decision, facts: EgressNodeFacts, pods: int, *, is_here: bool) -> Iterator[Finding]:
    about, links = f"Node/{facts.node.name}", facts.host.links
    uplink = links[BRIDGE].mtu if BRIDGE in links else 0
    need = pods + _tunnel_bytes(facts)
    if pods and uplink and uplink < need and not is_here:
        text = f"pods may send {pods} bytes, which need {need} between nodes, and {BRIDGE} has MTU {uplink}"
        fix = f"raise {BRIDGE}'s MTU to {need}, or lower the cluster network's"
        yield Finding("MtuTooSmall", about, text, fix=fix)
    out = _mtu_out(decision, facts)
    if pods and out and out < pods and decision.leaves:
        text = f"pods may send {pods} bytes, and {decision.link} has MTU {out}: {_TOLD.partition(';')[0]}"
        fix = f"raise {decision.link}'s MTU, or see that such messages reach the pods"
        yield Finding("MtuTooSmall", about, text, fix=fix)


def _mtu_out(decision: Decision, facts: EgressNodeFacts) -> int:
    link = facts.host.links.get(decision.link) if decision.link is not None else None
    return link.mtu if link is not None else 0


def _tunnel_bytes(facts: EgressNodeFacts) -> int:
    version = facts.node.internal_ips[0].version if facts.node.internal_ips else 4
    return _GENEVE_BYTES[version]
