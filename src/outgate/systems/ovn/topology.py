"""A zone as a packet meets it, read once: what `northbound` keeps a copy of, and routers' and switches' ports.

The node role never needs ports, of which a zone may have thousands, so they are asked for apart. Source: ovn-nb(5).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface
from types import MappingProxyType

from outgate.model.errors import Refused
from outgate.model.net import Address
from outgate.model.nics import HostCidr
from outgate.model.ovn import DropAcl, LogicalRoute, Policy, SetMember, Snat
from outgate.model.zone import RouterPort, SwitchPort, Zone
from outgate.systems.ovn.northbound import DATABASE, Northbound, shown
from outgate.systems.ovn.replica import Replica, Row, Uuid
from outgate.systems.ovn.wire import Database

_GLOBAL = "global"
_ROUTER, _SWITCH = "Logical_Router", "Logical_Switch"
_ROUTER_PORT, _SWITCH_PORT = "Logical_Router_Port", "Logical_Switch_Port"
_COLUMNS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        _ROUTER: ("name", "ports", "options"),
        _SWITCH: ("name", "ports"),
        _ROUTER_PORT: ("name", "mac", "networks", "peer"),
        _SWITCH_PORT: ("name", "type", "addresses", "dynamic_addresses", "options"),
    }
)


def read_zone(target: str, node: str = "") -> Zone:
    """Return the zone of a northbound database (`unix:PATH`, `tcp:HOST:PORT`); `node` names it, else it names itself.

    One without a name, where OVN-Kubernetes runs without interconnect, is `global`.

    Raises:
        Refused: that is no northbound database; the text names the target.
        Unreachable: nobody answers there.
    """
    try:
        with contextlib.closing(Northbound(target)) as northbound:
            reading = northbound.read()
        with contextlib.closing(Database(target, DATABASE)) as database:
            ports = _Ports(Replica(database, _COLUMNS).rows)
    except Refused as refused:
        raise Refused(f"read the northbound database at {target}", refused.words) from refused
    sets: dict[str, set[str]] = {name: set(members) for name, members in reading.sets.items()}
    for row in reading.actual:
        if isinstance(row, SetMember):
            sets.setdefault(row.set, set()).add(shown(row.member))
    return Zone(
        name=node or reading.zone or _GLOBAL,
        policies=reading.policies | {one for one in reading.actual if isinstance(one, Policy)},
        snats=reading.snats | {one for one in reading.actual if isinstance(one, Snat)},
        routes=reading.routes | {one for one in reading.actual if isinstance(one, LogicalRoute)},
        acls=frozenset(one for one in reading.actual if isinstance(one, DropAcl)),
        sets=MappingProxyType({name: frozenset(members) for name, members in sets.items()}),
        router_ports=tuple(ports.of_routers()),
        switch_ports=tuple(ports.of_switches()),
        gateways=MappingProxyType(dict(ports.gateways())),
    )


@dataclass(frozen=True, slots=True)
class _Ports:
    """The rows about ports, by table and uuid."""

    rows: Mapping[str, Mapping[Uuid, Row]]

    def of_routers(self) -> Iterator[RouterPort]:
        """Yield the ports of routers, by name."""
        for router, row in self._each(_ROUTER, _ROUTER_PORT):
            interfaces = [ip_interface(one) for one in sorted(row["networks"])]
            yield RouterPort(
                router=router,
                name=row["name"],
                mac=row["mac"],
                interfaces=tuple(HostCidr(one.ip, one.network) for one in interfaces),
                peer=row["peer"] or "",
            )

    def of_switches(self) -> Iterator[SwitchPort]:
        """Yield the ports of switches, by name."""
        for switch, row in self._each(_SWITCH, _SWITCH_PORT):
            words = " ".join((*sorted(row["addresses"]), row["dynamic_addresses"] or "")).split()
            yield SwitchPort(
                switch=switch,
                name=row["name"],
                kind=row["type"],
                mac=next((one for one in words if one.count(":") == 5 and len(one) == 17), ""),
                addresses=tuple(dict.fromkeys(_addresses(words))),
                router_port=row["options"].get("router-port", ""),
            )

    def gateways(self) -> Iterator[tuple[str, str]]:
        """Yield the routers that are bound to a chassis, with its name."""
        for row in self.rows[_ROUTER].values():
            if chassis := row["options"].get("chassis", ""):
                yield row["name"], chassis

    def _each(self, holder: str, table: str) -> Iterator[tuple[str, Row]]:
        """Yield each port with the name of what has it."""
        rows = self.rows[table]
        found = ((row["name"], rows[uuid]) for row in self.rows[holder].values() for uuid in row["ports"])
        yield from sorted(found, key=lambda one: (one[0], str(one[1]["name"])))


def _addresses(words: list[str]) -> Iterator[Address]:
    """Yield the addresses among MACs and words such as `unknown`, `dynamic` and `router`."""
    for word in words:
        with contextlib.suppress(ValueError):
            yield ip_address(word.partition("/")[0])
