"""What became of egress IPs: each move once, with when and why, the latest last.

Where outgate assigns them it knows why. Where OVN-Kubernetes does, what a node has now is compared with what it was
told before, and the reason is what is amiss with the old node.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from outgate.model.intent import Intent
from outgate.model.net import Address
from outgate.model.placement import Move, Moved
from outgate.plan.assignment import candidates
from outgate.plan.ground import Ground

_KEPT = 256


def seen_moves(intent: Intent) -> Iterator[Move]:
    """Yield the moves between what the nodes were told and what the EgressIPs say now."""
    before = {(one.egress_ip, one.address): node.name for node in intent.egress_nodes for one in node.assignments}
    now = {(one.name, address): node for one in intent.egress_ips for node, address in one.assigned}
    known = {one.name for one in intent.nodes}
    for key in sorted({*before, *now}, key=str):
        old, new = before.get(key, ""), now.get(key, "")
        if old != new and (new in known or not new):
            yield Move(egress_ip=key[0], address=key[1], from_node=old, to_node=new, reason=_why(intent, *key, old))


def recorded(standing: tuple[Moved, ...], moves: Iterable[Move], at: str) -> tuple[Moved, ...]:
    """Return the history with what is new in it; the same move is told again until the objects say that it was made."""
    latest = {(one.egress_ip, one.address): one for one in standing}
    fresh = []
    for move in moves:
        last = latest.get((move.egress_ip, move.address))
        if last is None or (last.from_node, last.to_node) != (move.from_node, move.to_node):
            fresh.append(
                Moved(
                    at=at,
                    egress_ip=move.egress_ip,
                    address=move.address,
                    from_node=move.from_node,
                    to_node=move.to_node,
                    reason=move.reason,
                )
            )
    return (*standing, *fresh)[-_KEPT:] if fresh else standing


def _why(intent: Intent, name: str, address: Address, old: str) -> str:
    egress_ip = next((one for one in intent.egress_ips if one.name == name), None)
    if egress_ip is None:
        return "the EgressIP is gone"
    if not old:
        return "OVN-Kubernetes assigned it"
    able = candidates(address, egress_ip, Ground(intent))
    found = next((one.reason for one in able if one.node == old), "the node is gone")
    return f"{old}: {found}" if found else f"OVN-Kubernetes moved it; {old} could have it still, as far as objects tell"
