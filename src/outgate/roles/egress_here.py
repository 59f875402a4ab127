"""What a node's own kernel and LAN say about egress IPs, for commands that look: live flows, and who answers for an
address.
"""

from __future__ import annotations

from outgate.model.egress_flows import EgressFlows
from outgate.model.intent import Intent
from outgate.model.neighbour import Heard, Neighbour
from outgate.model.net import Address
from outgate.model.rivals import NO_RIVALS, Rivals
from outgate.plan.egress_flows import Held, egress_flows
from outgate.plan.neighbour import judge, question
from outgate.systems.conntrack.read import count, flows
from outgate.systems.kernel.tables import read_tables
from outgate.systems.wire.ask import who_has


def flows_here(intent: Intent, node: str, only: str = "", rivals: Rivals = NO_RIVALS) -> EgressFlows:
    """Return what connection tracking in this thread's network namespace says; `only` names one EgressIP.

    Raises:
        Refused: the kernel does not let us read it.
        Unreachable: netlink does not answer.
    """
    occupancy = count()
    held = Held(flows=flows(), entries=occupancy.entries, limit=occupancy.limit)
    return egress_flows(intent, node, held, only, services=rivals.services)


def neighbour_here(address: Address, intent: Intent, rivals: Rivals, node: str) -> Neighbour:
    """Ask on the LAN of an address who has it, from this thread's network namespace; it takes about a second.

    Raises:
        IntentError: this machine is no Node, or not on that LAN.
        Unreachable: the NIC does not let us ask, or CAP_NET_RAW is missing.
    """
    host = read_tables()
    asked = question(address, intent, node, host)
    link = host.links.get(asked.link)
    answers = who_has(asked.link, asked.addresses)
    heard = Heard(node=node, link=asked.link, own=link.mac if link is not None else None, answers=answers)
    return judge(address, intent, heard, rivals.cloud)
