"""The brake: an input that is suddenly empty or much smaller deletes nothing in bulk before a second, complete reading
agrees.

A half-written directory, a list cut short, a kubeconfig for another cluster: each looks like an order to delete
everything.
"""

from __future__ import annotations

from outgate.model.intent import EgressGateway, Intent
from outgate.model.ledger import Ledger
from outgate.model.why import Finding, Severity


def braked(intent: Intent, gateway: EgressGateway | None, ledger: Ledger) -> Finding | None:
    """Return why this intent must be read a second time before it may delete, or None.

    Held are: the loss of more than half of the tenants, of all nodes, and of the EgressGateway itself while tenants are
    served.
    """
    tenants = len(intent.tenants_of(gateway)) if gateway is not None else 0
    reasons = []
    if gateway is None and ledger.tenants_known:
        reasons.append("the EgressGateway is gone")
    if ledger.tenants_known > 1 and tenants * 2 < ledger.tenants_known:
        reasons.append(f"{ledger.tenants_known} tenants became {tenants}")
    if ledger.nodes_known and not intent.nodes:
        reasons.append(f"all {ledger.nodes_known} nodes are gone")
    if not reasons:
        return None
    text = f"{', '.join(reasons)}: nothing is deleted until a second, complete reading agrees"
    return Finding("BrakeHeld", "Intent", text, Severity.WARNING, "if this is meant, apply it with --yes")
