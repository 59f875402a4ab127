"""A copy of the rows of one database that a role needs, kept up to date by what the server tells (`monitor_cond`).

A row is a dictionary of plain values, as the schema has its columns: a set is a frozenset, a map a dict, an optional
value is None when it is absent, a reference is a `Uuid`. The server leaves out columns that hold their default, and
tells of a changed set or map only what came or went. Source: RFC 7047, 5.1 and 5.2; ovsdb-server(7), 4.1.12 to 4.1.14;
the commit "add diff and apply diff APIs for ovsdb_datum" of Open vSwitch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, NewType, TypeAlias

from outgate.systems.ovn.wire import Database, Json
from outgate.systems.uncollected import uncollected

Row: TypeAlias = dict[str, Any]
Uuid = NewType("Uuid", str)  # a reference to a row

Listener: TypeAlias = Callable[[str, Uuid, Row | None, Row | None], None]

_DEFAULTS = {"string": "", "integer": 0, "real": 0.0, "boolean": False}
_MONITOR = "outgate"


def _nobody_listens(table: str, uuid: Uuid, before: Row | None, after: Row | None) -> None:
    """Hear of a row, and do nothing."""


class Kind(Enum):
    """How many values a column holds."""

    ONE = "one"
    OPTIONAL = "optional"
    SET = "set"
    MAP = "map"


def kind_of(column: Json) -> Kind:
    """Return the kind of a column of a schema (RFC 7047, 3.2)."""
    match column["type"]:
        case {"value": _}:
            return Kind.MAP
        case {"max": most} if most != 1:
            return Kind.SET
        case {"min": 0}:
            return Kind.OPTIONAL
        case _:
            return Kind.ONE


class Replica:
    """Rows by table and uuid. `columns` says which of each table are wanted; those that the schema lacks are left out.

    `schema` is the server's own, by table and column.
    """

    def __init__(
        self, database: Database, columns: Mapping[str, Sequence[str]], listen: Listener = _nobody_listens
    ) -> None:
        """Ask for the rows; they are all there when this returns.

        `listen` is told of each row that comes (before is None), changes, or goes (after is None). A row that changes
        is a new dictionary, so that who keeps one may ask whether it is still the same.

        Raises:
            Refused: the schema has no such table.
            Unreachable: the server does not answer.
        """
        tables = database.call("get_schema", [database.name])["tables"]
        self.schema: Mapping[str, frozenset[str]] = {name: frozenset(one["columns"]) for name, one in tables.items()}
        self._types = tables
        self.rows: dict[str, dict[Uuid, Row]] = {table: {} for table in columns}
        self._database = database
        self._kinds: dict[str, dict[str, Kind]] = {}
        self._empty: dict[str, Row] = {}
        wanted = {}
        for table, names in columns.items():
            there = {name: one for name, one in tables.get(table, {"columns": {}})["columns"].items() if name in names}
            self._kinds[table] = {name: kind_of(one) for name, one in there.items()}
            self._empty[table] = {name: _default(one) for name, one in there.items()}
            wanted[table] = [{"columns": list(there)}]
        self._listen = listen
        with uncollected():
            self._take(database.call("monitor_cond", [database.name, _MONITOR, wanted]))

    def words(self, table: str, column: str) -> frozenset[str]:
        """Return the words that a column may hold (of a map: its keys), where the schema names them; else none."""
        kind = self._types.get(table, {"columns": {}})["columns"].get(column, {}).get("type")
        key = kind.get("key") if isinstance(kind, dict) else None
        said = key.get("enum") if isinstance(key, dict) else None
        match said:
            case ["set", [*words]]:
                return frozenset(map(str, words))
            case str():
                return frozenset((said,))
            case _:
                return frozenset()

    def catch_up(self) -> bool:
        """Take in what the server has told since; return whether that was anything.

        Raises:
            Unreachable: the connection is gone: the copy is of no use any more.
        """
        told = self._database.told()
        for _, updates in told:
            self._take(updates)
        return bool(told)

    def _take(self, updates: Mapping[str, Mapping[str, Mapping[str, Json]]]) -> None:
        for table, changes in updates.items():
            rows, kinds, empty = self.rows[table], self._kinds[table], self._empty[table]
            for key, change in changes.items():
                uuid = Uuid(key)
                before, after = rows.pop(uuid, None), None
                if "modify" in change and before is not None:
                    changed = change["modify"].items()
                    after = before | {name: _changed(before[name], kinds[name], one) for name, one in changed}
                elif "delete" not in change:
                    new = change.get("initial", change.get("insert", {}))
                    after = empty | {name: _value(kinds[name], one) for name, one in new.items()}
                if after is not None:
                    rows[uuid] = after
                self._listen(table, uuid, before, after)


def _default(column: Json) -> Any:
    match kind_of(column):
        case Kind.MAP:
            return {}
        case Kind.SET:
            return frozenset()
        case Kind.OPTIONAL:
            return None
        case Kind.ONE:
            key = column["type"] if isinstance(column["type"], str) else column["type"]["key"]
            return _DEFAULTS.get(key if isinstance(key, str) else key["type"], "")


def _value(kind: Kind, wire: Json) -> Any:
    match kind:
        case Kind.ONE:
            return _atom(wire)
        case Kind.MAP:
            return {_atom(key): _atom(one) for key, one in wire[1]}
        case _:
            is_set = type(wire) is list and wire[0] == "set"
            members = frozenset(map(_atom, wire[1])) if is_set else frozenset((_atom(wire),))
            return members if kind is Kind.SET else next(iter(members), None)


def _atom(wire: Json) -> Any:
    return Uuid(wire[1]) if type(wire) is list else wire


def _changed(old: Any, kind: Kind, wire: Json) -> Any:
    """Return a value after a change: of a set what came or went is told, of a map the pairs that are new or gone."""
    new = _value(kind, wire)
    match kind:
        case Kind.SET:
            return old ^ new
        case Kind.MAP:
            gone = {key for key, value in new.items() if old.get(key) == value}
            return {key: value for key, value in (old | new).items() if key not in gone}
        case _:
            return new
