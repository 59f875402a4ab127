"""What a node's own kernel and LAN say about egress IPs, for commands that look: live flows, and who answers for an
address.
"""

from __future__ import annotations

from outgate.model.egress_flows import EgressFlows
from outgate.model.intent import Intent
from outgate.plan.egress_flows import Held, egress_flows
from outgate.systems.conntrack.read import count, flows


def flows_here(intent: Intent, node: str, only: str = "") -> EgressFlows:
    """Return what connection tracking in this thread's network namespace says; `only` names one EgressIP.

    Raises:
        Refused: the kernel does not let us read it.
        Unreachable: netlink does not answer.
    """
    occupancy = count()
    return egress_flows(intent, node, Held(flows=flows(), entries=occupancy.entries, limit=occupancy.limit), only)
