"""The gateway is changed, one resource after the other, and may stop after any of them. Meanwhile every pod sends.

At every prefix of every change no pod's packet leaves with its own address, nor with an address of another tenant than
the one whose next hop it came by. Pods 10.132.0.0/14 and fd01::/48, egress 192.168.55.0/24 and fd55::/64, outside
203.0.113.0/24 and 2001:db8:113::/64.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from ipaddress import ip_address

import pytest

from outgate.compare.changes import changes
from outgate.model.intent import Intent
from outgate.model.ledger import Ledger
from outgate.model.net import Address, LinkName, Setting
from outgate.model.ruleset import Element, Table
from outgate.model.state import Facts, Resource, Snapshot
from outgate.plan.allocate import link_name
from outgate.plan.gateway import plan
from outgate.trace.steps import Disposition, Packet, Trace
from outgate.trace.walk import walk
from outgate.trace.world import World, world_of_actual
from tests.stories.cluster import (
    BLUE,
    CLUSTER,
    DIGEST,
    ENP1S0,
    GREEN_BY_SOURCE,
    MACHINE,
    N1,
    RED,
    desired,
    probed,
)

ALL = replace(CLUSTER, tenants=(BLUE, GREEN_BY_SOURCE, RED))
OUTSIDE = {4: ip_address("203.0.113.9"), 6: ip_address("2001:db8:113::9")}
GUARDS = 1  # the start: from the table on, the first to be made and the last to go, nothing gets out
ROUTER = replace(  # somebody has switched forwarding on before: that it is off protects nobody here
    MACHINE, settings={key: int(key[1] in (Setting.FORWARDING, Setting.FORWARDING6)) for key in MACHINE.settings}
)
TRANSITIONS = {
    "from nothing": (None, ALL),
    "to nothing": (ALL, replace(ALL, tenants=(), gateways=())),
    "all tenants leave": (ALL, replace(ALL, tenants=())),
    "a tenant joins": (replace(ALL, tenants=(BLUE, RED)), ALL),
    "a tenant gets another egress IP": (
        ALL,
        replace(ALL, tenants=(replace(BLUE, egress_ips=(ip_address("192.168.55.119"),)), GREEN_BY_SOURCE, RED)),
    ),
    "two tenants change places": (
        ALL,
        replace(
            ALL,
            tenants=(
                replace(BLUE, identity=RED.identity, egress_ips=BLUE.egress_ips[:1]),
                GREEN_BY_SOURCE,
                replace(RED, identity=BLUE.identity),
            ),
        ),
    ),
    "a node leaves": (ALL, replace(ALL, nodes=(N1,))),
}


def steps(before: Intent | None, after: Intent) -> Iterator[frozenset[Resource]]:
    """Yield what the machine holds after each write of the change, the start and the end included."""
    ledger = probed(Ledger(), before) if before is not None else Ledger()
    have = dict.fromkeys(desired(before).wants) if before is not None else {}
    known = probed(ledger, after) if after.gateways else ledger
    wanted = plan(Snapshot(intent=after, facts=MACHINE, ledger=known, gateway=""), DIGEST)
    planned = changes(wanted.wants, have.keys())
    yield frozenset(have)
    elements = [resource for resource in wanted.wants if isinstance(resource, Element)]
    for resource in planned.make:
        together: list[Resource] = (
            [resource, *elements] if isinstance(resource, Table) else [resource]
        )  # loaded in one transaction
        slots = {one.slot for one in together}
        have = {old: None for old in have if old.slot not in slots} | dict.fromkeys(together)
        yield frozenset(have)
    whole = any(isinstance(resource, Table) for resource in planned.drop)
    for resource in planned.drop:
        if isinstance(resource, Element) and whole:
            continue  # goes with the table
        del have[resource]
        if isinstance(resource, Table):
            have = {old: None for old in have if not isinstance(old, Element)}
        yield frozenset(have)


def senders(world: World) -> Iterator[Packet]:
    """Yield a packet of every pod by every link that it could come by, its own or not."""
    links = [ENP1S0, *(LinkName(name) for name in world.links if name.startswith("og-"))]
    for pod in ALL.pods:
        for source in pod.addresses:
            for link in links:
                yield Packet(source=source, destination=OUTSIDE[source.version], incoming=link)


def allowed(*intents: Intent | None) -> dict[LinkName, set[Address]]:
    """Return as whom a packet may be seen outside, by the link that it came by."""
    seen: dict[LinkName, set[Address]] = {ENP1S0: set(GREEN_BY_SOURCE.egress_ips)}
    for intent in intents:
        for tenant in intent.tenants if intent is not None else ():
            seen.setdefault(link_name("gw1", tenant.name), set()).update(tenant.egress_ips)
    return seen


def escapes(worlds: Iterable[frozenset[Resource]], facts: Facts, may: dict[LinkName, set[Address]]) -> Iterator[Trace]:
    """Yield the walks of packets that leave as somebody whom their link does not allow."""
    for held in worlds:
        world = world_of_actual(held, facts, DIGEST)
        for packet in senders(world):
            trace = walk(world, packet)
            if trace.disposition is Disposition.LEAVES and trace.leaves_as not in may[packet.incoming]:
                yield trace


@pytest.mark.parametrize("name", TRANSITIONS)
@pytest.mark.parametrize("facts", [MACHINE, ROUTER], ids=["a host", "a router before"])
def test_no_prefix_of_a_change_lets_a_pod_out_as_itself_or_as_another_tenant(name: str, facts: Facts) -> None:
    before, after = TRANSITIONS[name]
    worlds = list(steps(before, after))
    # Before the guards are written, and after the last of them is gone, outgate promises nothing
    worlds = worlds if before is not None else worlds[GUARDS:]
    worlds = worlds if after.gateways else worlds[:-GUARDS]

    assert list(escapes(worlds, facts, allowed(before, after))) == []


def test_another_order_would_let_pods_out_so_the_walk_does_see_it() -> None:
    made = list(changes(desired(ALL).wants, frozenset()).make)
    backwards = [frozenset(made[-count:]) for count in range(1, len(made))]
    assert any(trace.untranslated for trace in escapes(backwards, ROUTER, allowed(ALL)))
