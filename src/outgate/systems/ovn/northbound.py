"""The northbound database of a zone: read as values, split by ownership, and written in one transaction.

What is ours bears our owner id in `external_ids`; whatever else stands there is never touched. A row is told again by
its uuid, which the copy of the database knows, so that a drop or a change names exactly the row that was read.
Source: ovn-nb(5).
"""

from __future__ import annotations

import select
import time
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address, ip_interface, ip_network
from types import MappingProxyType
from typing import TypeAlias, assert_never

from outgate.model.errors import Refused
from outgate.model.net import Address, Prefix
from outgate.model.nics import HostCidr
from outgate.model.ovn import OWNER, Action, DropAcl, LogicalRoute, OvnRow, Policy, QosMark, SetMember, Snat
from outgate.systems.ovn.replica import Replica, Row, Uuid
from outgate.systems.ovn.wire import Database, Operation
from outgate.systems.uncollected import uncollected

DATABASE = "OVN_Northbound"
_ROUTER, _POLICY, _NAT = "Logical_Router", "Logical_Router_Policy", "NAT"
_ROUTE, _SET, _GLOBAL = "Logical_Router_Static_Route", "Address_Set", "NB_Global"
_PORT, _SWITCH, _QOS, _ACL = "Logical_Router_Port", "Logical_Switch", "QoS", "ACL"
_COLUMNS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        _GLOBAL: ("name", "nb_cfg", "hv_cfg"),
        _ROUTER: ("name", "policies", "nat", "static_routes", "ports", "options"),
        _PORT: ("name", "networks"),
        _SWITCH: ("name", "qos_rules", "acls"),
        _ACL: ("priority", "direction", "match", "action", "external_ids"),
        _QOS: ("priority", "direction", "match", "action", "external_ids"),
        _POLICY: ("priority", "match", "action", "nexthop", "nexthops", "options", "external_ids"),
        _NAT: ("type", "external_ip", "logical_ip", "logical_port", "external_ids"),
        _ROUTE: ("ip_prefix", "nexthop", "policy", "output_port", "route_table", "external_ids"),
        _SET: ("name", "addresses", "external_ids"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NorthboundReading:
    """A zone's rows: `actual` are ours, `policies`, `snats`, `routes` and `sets` somebody else's.

    `sets` are address sets by name, `marks_answers` says whether this OVN can mark packets where they enter a switch,
    `ports` the addresses of routers' ports by the port's name.
    """

    zone: str
    actual: frozenset[OvnRow] = frozenset()
    policies: frozenset[Policy] = frozenset()
    snats: frozenset[Snat] = frozenset()
    routes: frozenset[LogicalRoute] = frozenset()
    sets: Mapping[str, frozenset[str]] = field(default_factory=lambda: MappingProxyType({}))
    ports: Mapping[str, tuple[HostCidr, ...]] = field(default_factory=lambda: MappingProxyType({}))
    marks_answers: bool = False


class Northbound:
    """A connection to a zone's northbound database, with a copy of what egress traffic depends on."""

    def __init__(self, target: str) -> None:
        """Connect (`unix:PATH`, `tcp:HOST:PORT`) and read.

        Raises:
            Refused: that is no northbound database.
            Unreachable: nobody answers there.
        """
        self._database = Database(target, DATABASE)
        self._owned = Owned()
        self._replica = Replica(self._database, _COLUMNS, self._owned.listen)
        self._values: dict[Uuid, tuple[Row, str, Policy | Snat]] = {}  # what rows were read as, while they stay

    def fileno(self) -> int:
        """Return what becomes readable when rows change."""
        return self._database.fileno()

    def catch_up(self) -> bool:
        """Take in what has changed; return whether anything has.

        Raises:
            Unreachable: the connection is gone; open another.
        """
        return self._replica.catch_up()

    def close(self) -> None:
        """Close the connection; what was written stays."""
        self._database.close()

    def read(self) -> NorthboundReading:
        """Return the rows as they are now."""
        with uncollected():
            return self._read()

    def _read(self) -> NorthboundReading:
        rows = self._replica.rows
        policies, snats = frozenset(self._policies()), frozenset(self._snats())
        gone = [uuid for uuid in self._values if uuid not in rows[_POLICY] and uuid not in rows[_NAT]]
        for uuid in gone:
            del self._values[uuid]
        ours: list[OvnRow] = [one for one in policies if one.owner]
        ours += [one for one in snats if one.owner]
        ours += [one for one in self._marks() if one.owner]
        ours += self._acls()
        routes = list(self._routes())
        ours += [one for one in routes if one.owner]
        sets: dict[str, frozenset[str]] = {}
        for row in rows[_SET].values():
            if OWNER in row["external_ids"]:
                ours += [_member(row["name"], one) for one in row["addresses"]]
            else:
                sets[row["name"]] = row["addresses"]
        return NorthboundReading(
            zone=next((one["name"] for one in rows[_GLOBAL].values()), ""),
            actual=frozenset(ours),
            policies=frozenset(one for one in policies if not one.owner),
            snats=frozenset(one for one in snats if not one.owner),
            routes=frozenset(one for one in routes if not one.owner),
            sets=MappingProxyType(sets),
            marks_answers="mark" in self._replica.words(_QOS, "action"),
            ports=MappingProxyType({row["name"]: _interfaces(row["networks"]) for row in rows[_PORT].values()}),
        )

    def write(self, make: Iterable[OvnRow], drop: Iterable[OvnRow], *, change: str = "write egress policies") -> None:
        """Make and drop rows of ours, in one transaction; a made row takes the place of ours in its slot.

        Raises:
            Refused: with the server's words, or because a router is not there; nothing was written.
            Unreachable: the server does not answer; what it did last is known after reading anew.
        """
        operations = list(Writing(self._replica, self._owned, make, drop).operations())
        if operations:
            self._database.transact(operations, change=change)
            self.catch_up()

    def wait_until_applied(self, within_s: float) -> bool:
        """Return whether every chassis of the zone does what was written so far, having waited so long at most.

        As `ovn-nbctl --wait=hv`: a number that grows is written, and comes back from ovn-controller (ovn-nb(5)).

        Raises:
            Refused, Unreachable: as `write`.
        """
        counted: Operation = {"op": "mutate", "table": _GLOBAL, "where": [], "mutations": [["nb_cfg", "+=", 1]]}
        asked: Operation = {"op": "select", "table": _GLOBAL, "where": [], "columns": ["nb_cfg"]}
        results = self._database.transact([counted, asked], change="wait for the chassis")
        number = int(results[1]["rows"][0]["nb_cfg"])
        end = time.monotonic() + within_s
        while True:
            self.catch_up()
            if all(row["hv_cfg"] >= number for row in self._replica.rows[_GLOBAL].values()):
                return True
            left_s = end - time.monotonic()
            if left_s <= 0:
                return False
            select.select((self._database,), (), (), left_s)

    def _policies(self) -> Iterator[Policy]:
        for router, uuid, row in self._of_routers("policies", _POLICY):
            kept = self._values.get(uuid)
            if kept is not None and kept[0] is row and kept[1] == router and isinstance(kept[2], Policy):
                yield kept[2]
                continue
            hops = row["nexthops"] or ({row["nexthop"]} - {None})
            policy = Policy(
                router=router,
                priority=row["priority"],
                match=row["match"],
                action=Action(row["action"]),
                next_hops=tuple(sorted(map(_address, hops))),
                packet_mark=int(row["options"].get("pkt_mark", "0")),
                owner=row["external_ids"].get(OWNER, ""),
            )
            self._values[uuid] = (row, router, policy)
            yield policy

    def _snats(self) -> Iterator[Snat]:
        for router, uuid, row in self._of_routers("nat", _NAT):
            kept = self._values.get(uuid)
            if kept is not None and kept[0] is row and kept[1] == router and isinstance(kept[2], Snat):
                yield kept[2]
            elif row["type"] == "snat":
                snat = Snat(
                    router=router,
                    inside=ip_network(row["logical_ip"]),
                    outside=_address(row["external_ip"]),
                    port=row["logical_port"] or "",
                    owner=row["external_ids"].get(OWNER, ""),
                )
                self._values[uuid] = (row, router, snat)
                yield snat

    def _routes(self) -> Iterator[LogicalRoute]:
        for name, _, row in self._of_routers("static_routes", _ROUTE):
            if not row["route_table"]:
                yield LogicalRoute(
                    router=name,
                    prefix=ip_network(row["ip_prefix"]),
                    next_hop=row["nexthop"],
                    by_source=row["policy"] == "src-ip",
                    port=row["output_port"] or "",
                    owner=row["external_ids"].get(OWNER, ""),
                )

    def _marks(self) -> Iterator[QosMark]:
        rows = self._replica.rows
        for switch in rows[_SWITCH].values():
            for uuid in switch["qos_rules"]:
                row = rows[_QOS][uuid]
                yield QosMark(
                    switch=switch["name"],
                    priority=row["priority"],
                    match=row["match"],
                    mark=row["action"].get("mark", 0),
                    owner=row["external_ids"].get(OWNER, ""),
                )

    def _acls(self) -> Iterator[DropAcl]:
        """Yield ours; of others a zone has thousands, which are about other things."""
        rows = self._replica.rows
        for switch in rows[_SWITCH].values():
            for uuid in switch["acls"]:
                row = rows[_ACL][uuid]
                if OWNER in row["external_ids"]:
                    owner = row["external_ids"][OWNER]
                    yield DropAcl(switch=switch["name"], priority=row["priority"], match=row["match"], owner=owner)

    def _of_routers(self, column: str, table: str) -> Iterator[tuple[str, Uuid, Row]]:
        """Yield each row of a table that a router refers to, with the router's name."""
        rows = self._replica.rows[table]
        for router in self._replica.rows[_ROUTER].values():
            name = router["name"]
            for uuid in router[column]:
                yield name, uuid, rows[uuid]


_TABLE = {Policy: _POLICY, Snat: _NAT, LogicalRoute: _ROUTE, QosMark: _QOS, DropAcl: _ACL}
_Referred: TypeAlias = Policy | Snat | LogicalRoute | QosMark | DropAcl  # rows that a router or switch refers to


class Owned:
    """Where our rows are: uuids by what a slot says of a row beside its router."""

    def __init__(self) -> None:
        self._uuids: dict[Hashable, set[Uuid]] = {}

    def listen(self, table: str, uuid: Uuid, before: Row | None, after: Row | None) -> None:
        """Follow a change of a row."""
        if table in _TABLE.values():
            if before is not None and OWNER in before["external_ids"]:
                self._uuids.get(_key(table, before), set()).discard(uuid)
            if after is not None and OWNER in after["external_ids"]:
                self._uuids.setdefault(_key(table, after), set()).add(uuid)

    def find(self, row: _Referred, referred: frozenset[Uuid]) -> Uuid | None:
        """Return our row in the slot of one, among those that its router or switch refers to."""
        match row:
            case Snat():
                key: Hashable = (_NAT, shown(row.inside))
            case LogicalRoute():
                key = (_ROUTE, shown(row.prefix), row.by_source)
            case Policy() | QosMark() | DropAcl():
                key = (_TABLE[type(row)], row.priority, row.match)
            case _:
                assert_never(row)
        return next((uuid for uuid in self._uuids.get(key, ()) if uuid in referred), None)


def _key(table: str, row: Row) -> Hashable:
    if table == _NAT:
        return (table, row["logical_ip"])
    if table == _ROUTE:
        return (table, row["ip_prefix"], row["policy"] == "src-ip")
    return (table, row["priority"], row["match"])


_Holder: TypeAlias = tuple[str, str]  # table and name of what refers to a row
_REFERRING = {Policy: "policies", Snat: "nat", LogicalRoute: "static_routes", QosMark: "qos_rules", DropAcl: "acls"}


def _holder(row: _Referred) -> _Holder:
    return (_SWITCH, row.switch) if isinstance(row, QosMark | DropAcl) else (_ROUTER, row.router)


class Writing:
    """The operations that turn what was read into what is wanted (RFC 7047, 5.2)."""

    def __init__(self, replica: Replica, owned: Owned, make: Iterable[OvnRow], drop: Iterable[OvnRow]) -> None:
        self._rows, self._owned = replica.rows, owned
        self._make, self._drop = list(make), list(drop)
        self._holders = {
            (table, row["name"]): uuid for table in (_ROUTER, _SWITCH) for uuid, row in self._rows[table].items()
        }
        self._columns: dict[tuple[_Holder, str], tuple[list[object], list[object]]] = {}  # of holders: came, went

    def operations(self) -> Iterator[Operation]:
        """Yield them: rows first, then what refers to them.

        Raises:
            Refused: a router or switch is not there.
        """
        for row in self._make:
            if not isinstance(row, SetMember) and _holder(row) not in self._holders:
                table, name = _holder(row)
                raise Refused(str(row), f"the zone has no {table} {name}")
        yield from self._sets()
        taken: set[Uuid] = set()
        for number, row in enumerate(self._make):
            if not isinstance(row, SetMember):
                old = self._find(row)
                taken |= {old} if old is not None else set()
                yield self._put(row, old, f"row{number}")
        for row in self._drop:
            if not isinstance(row, SetMember):
                uuid = self._find(row)
                if uuid is not None and uuid not in taken:
                    self._refer(row)[1].append(["uuid", uuid])
        yield from self._references()

    def _put(self, row: _Referred, old: Uuid | None, name: str) -> Operation:
        table, wire = _TABLE[type(row)], _wire(row)
        if old is not None:
            return {"op": "update", "table": table, "where": [["_uuid", "==", ["uuid", old]]], "row": wire}
        self._refer(row)[0].append(["named-uuid", name])
        return {"op": "insert", "table": table, "row": wire, "uuid-name": name}

    def _refer(self, row: _Referred) -> tuple[list[object], list[object]]:
        return self._columns.setdefault((_holder(row), _REFERRING[type(row)]), ([], []))

    def _references(self) -> Iterator[Operation]:
        """Yield one mutation for each column of a router or switch."""
        for (holder, column), (came, went) in self._columns.items():
            mutations = [[column, verb, ["set", some]] for verb, some in (("insert", came), ("delete", went)) if some]
            where = [["_uuid", "==", ["uuid", self._holders[holder]]]]
            yield {"op": "mutate", "table": holder[0], "where": where, "mutations": mutations}

    def _find(self, row: _Referred) -> Uuid | None:
        """Return our row that stands in the slot of one."""
        holder = self._holders.get(_holder(row))
        if holder is None:
            return None
        return self._owned.find(row, self._rows[_holder(row)[0]][holder][_REFERRING[type(row)]])

    def _sets(self) -> Iterator[Operation]:
        """Yield what brings address sets to their members; one that would be empty goes."""
        came: dict[str, set[Prefix]] = {}
        went: dict[str, set[Prefix]] = {}
        for rows, target in ((self._make, came), (self._drop, went)):
            for row in rows:
                if isinstance(row, SetMember):
                    target.setdefault(row.set, set()).add(row.member)
        there = {row["name"]: uuid for uuid, row in self._rows[_SET].items() if OWNER in row["external_ids"]}
        for name in sorted({*came, *went}):
            inserted, deleted = (sorted(map(shown, some.get(name, ()))) for some in (came, went))
            where = [["_uuid", "==", ["uuid", there.get(name, "")]]]
            if name not in there:
                ids = ["map", [[OWNER, f"node:set:{name}"]]]
                new = {"name": name, "addresses": ["set", inserted], "external_ids": ids}
                yield {"op": "insert", "table": _SET, "row": new}
                continue
            if not self._rows[_SET][there[name]]["addresses"] - set(deleted) and not inserted:
                yield {"op": "delete", "table": _SET, "where": where}
                continue
            mutations = [
                ["addresses", verb, ["set", some]] for verb, some in (("insert", inserted), ("delete", deleted)) if some
            ]
            yield {"op": "mutate", "table": _SET, "where": where, "mutations": mutations}


@lru_cache(maxsize=1 << 16)
def _member(name: str, text: str) -> SetMember:
    """Return a member of a set; between two readings most are the same."""
    return SetMember(set=name, member=ip_network(text))


@lru_cache(maxsize=4096)
def _address(text: str) -> Address:
    """Return an address; next hops are few, and rows are many."""
    return ip_address(text)


def _wire(row: _Referred) -> Row:
    match row:
        case Policy():
            return _policy(row)
        case Snat():
            return _snat(row)
        case LogicalRoute():
            return _route(row)
        case QosMark():
            return _mark(row)
        case DropAcl():
            return _acl(row)
        case _:
            assert_never(row)


def _policy(policy: Policy) -> Row:
    return {
        "priority": policy.priority,
        "match": policy.match,
        "action": policy.action.value,
        "nexthops": ["set", [str(one) for one in policy.next_hops]],
        "options": ["map", [["pkt_mark", str(policy.packet_mark)]] if policy.packet_mark else []],
        "external_ids": ["map", [[OWNER, policy.owner]]],
    }


def _mark(mark: QosMark) -> Row:
    return {
        "priority": mark.priority,
        "direction": "from-lport",
        "match": mark.match,
        "action": ["map", [["mark", mark.mark]]],
        "external_ids": ["map", [[OWNER, mark.owner]]],
    }


def _route(route: LogicalRoute) -> Row:
    return {
        "ip_prefix": shown(route.prefix),
        "nexthop": route.next_hop,
        "policy": ["set", ["src-ip"] if route.by_source else []],
        "output_port": ["set", [route.port] if route.port else []],
        "external_ids": ["map", [[OWNER, route.owner]]],
    }


def _acl(acl: DropAcl) -> Row:
    return {
        "priority": acl.priority,
        "direction": "to-lport",
        "match": acl.match,
        "action": "drop",
        "external_ids": ["map", [[OWNER, acl.owner]]],
    }


def _interfaces(networks: frozenset[str]) -> tuple[HostCidr, ...]:
    found = (ip_interface(one) for one in sorted(networks))
    return tuple(HostCidr(one.ip, one.network) for one in found)


def _snat(snat: Snat) -> Row:
    return {
        "type": "snat",
        "logical_ip": shown(snat.inside),
        "external_ip": str(snat.outside),
        "logical_port": ["set", [snat.port] if snat.port else []],
        "external_ids": ["map", [[OWNER, snat.owner]]],
    }


def shown(prefix: Prefix) -> str:
    """Return a prefix as OVN-Kubernetes writes it: a single address without a length."""
    return str(prefix.network_address) if prefix.prefixlen == prefix.max_prefixlen else str(prefix)
