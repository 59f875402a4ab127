"""The order of writing, so that every prefix of every change sequence is fail closed.

Making: the table with its guards first, then settings, then the policy rules behind it. (The other way round, the flows
of a script that is being taken over would meet the rules before the table gives them a mark, and their replies a strict
reverse-path filter before it looks at marks.) Then what only lets replies come back (addresses on uplinks, return
routes), then the elements that identify and translate, then the links on which tenants' packets arrive, and forwarding
last. On a cluster node OVN hands packets to the host last of all. Dropping: the links first, so that nothing arrives
any more when its identity goes; the guards last.
"""

from __future__ import annotations

from typing import assert_never

from outgate.model.net import Answered, LinkAddress, LinkSetting, Route, Rule, Setting, TenantLink
from outgate.model.ovn import DropAcl, LogicalRoute, Policy, QosMark, SetMember, Snat
from outgate.model.ruleset import Element, Table
from outgate.model.state import Resource

OWN_LINK_PREFIX = "og-"
FORWARDING = (Setting.FORWARDING, Setting.FORWARDING6)


def make_rank(resource: Resource) -> int:
    """Return the place of a resource when it is made; equal places have no order among them."""
    match resource:
        case Table():
            return 0
        case Rule():
            return 2
        case LinkAddress() | Answered():
            return 7 if resource.link.startswith(OWN_LINK_PREFIX) else 3
        case LinkSetting():
            return 8 if resource.setting in FORWARDING else 1
        case Route():
            return 4
        case Element():
            return 5
        case TenantLink():
            return 6
        case Policy() | Snat() | LogicalRoute() | QosMark() | DropAcl() | SetMember():
            return 9
        case _:
            assert_never(resource)


def drop_rank(resource: Resource) -> int:
    """Return the place of a resource when it is dropped: the reverse of making."""
    return -make_rank(resource)
