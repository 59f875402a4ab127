"""Foreign nftables, from `nft -j list ruleset`: the marks they touch, the sources they change, what they refuse.

An expression that is not understood is taken at its widest (model/firewall.py). Source: libnftables-json(5).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any, TypeAlias

from outgate.model.firewall import WHOLE_MARK, Acceptance, HookChain, MarkKind, MarkUse, MaskedMark, SourceNat
from outgate.model.net import Mark, Prefix

Json: TypeAlias = Mapping[str, Any]
TableKey: TypeAlias = tuple[str, str]  # family and name

_KEYS: Mapping[MarkKind, Json] = {
    MarkKind.PACKET: {"meta": {"key": "mark"}},
    MarkKind.FLOW: {"ct": {"key": "mark"}},
}
_STATE: Json = {"ct": {"key": "state"}}
_SOURCE_NATS = ("snat", "masquerade")
_SILENT = ("counter", "log", "comment", "xt")  # statements that decide nothing


@dataclass(frozen=True, slots=True)
class ForeignTables:
    """The chains and rules of a listing, without the tables that are somebody else's to read."""

    chains: tuple[Json, ...]
    rules: tuple[Json, ...]

    def hook_of(self, rule: Json) -> tuple[str, int]:
        """Return hook and priority of a rule's chain; ("", 0) for one that is only jumped to."""
        for chain in self.chains:
            if _key(chain) == _key(rule) and chain["name"] == rule["chain"] and "hook" in chain:
                return str(chain["hook"]), int(chain["prio"])
        return "", 0


def foreign(listing: Sequence[Json], skip: Collection[TableKey]) -> ForeignTables:
    """Return the part of a listing (the content of `nftables`) that no table of `skip` holds."""
    chains = (item["chain"] for item in listing if "chain" in item)
    rules = (item["rule"] for item in listing if "rule" in item)
    return ForeignTables(
        tuple(chain for chain in chains if _key(chain) not in skip),
        tuple(rule for rule in rules if _key(rule) not in skip),
    )


def hook_chains(tables: ForeignTables) -> Iterator[HookChain]:
    """Yield the hooked chains of layer 3, with what their rules let pass and whether the rest is refused."""
    for chain in tables.chains:
        if "hook" not in chain or chain["family"] not in ("ip", "ip6", "inet"):
            continue
        mine = [rule["expr"] for rule in tables.rules if _key(rule) == _key(chain) and rule["chain"] == chain["name"]]
        yield HookChain(
            place=f"nft table {chain['family']} {chain['table']}, chain {chain['name']}",
            hook=chain["hook"],
            priority=int(chain["prio"]),
            version={"ip": 4, "ip6": 6}.get(chain["family"]),
            refuses=chain.get("policy") == "drop" or any(_refuses_all(expressions) for expressions in mine),
            jumps=any(_mentions_key(expressions, word) for expressions in mine for word in ("jump", "goto")),
            accepts=tuple(found for expressions in mine if (found := _acceptance(expressions)) is not None),
        )


def source_nats(tables: ForeignTables) -> Iterator[SourceNat]:
    """Yield the rules that give packets another source."""
    for rule in tables.rules:
        expressions = rule["expr"]
        if not any(name in expression for expression in expressions for name in _SOURCE_NATS):
            continue
        seen = _Matches.of(expressions)
        hook, priority = tables.hook_of(rule)
        yield SourceNat(
            place=_place(rule),
            priority=priority if hook else 100,
            src=seen.src,
            incoming=seen.incoming[0] if len(seen.incoming) == 1 else "",
            outgoing=seen.outgoing,
            mark=seen.mark,
            conditional=seen.conditional or not hook,
        )


def mark_uses(tables: ForeignTables) -> Iterator[MarkUse]:
    """Yield every reading and writing of a mark."""
    for rule in tables.rules:
        if rule["family"] not in ("ip", "ip6", "inet"):
            continue
        hook, priority = tables.hook_of(rule)
        seen = _Matches.of(rule["expr"])
        for kind, mark, writes in _touched(rule["expr"]):
            yield MarkUse(
                kind=kind,
                writes=writes,
                value=mark.value,
                mask=mark.mask,
                place=_place(rule),
                hook=hook,
                priority=priority,
                incoming=seen.incoming,
                effect=_effect(rule["expr"]),
                negated=mark.negated,
                conditional=seen.conditional,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Matches:
    """What a rule asks for; `conditional` when it asks for more than the fields say."""

    incoming: tuple[str, ...] = ()
    outgoing: str = ""
    src: Prefix | None = None
    mark: MaskedMark | None = None
    flow_mark: MaskedMark | None = None
    established: bool = False
    conditional: bool = False

    @staticmethod
    def of(expressions: Sequence[Json]) -> _Matches:
        """Return the matches of a rule's expressions."""
        incoming: tuple[str, ...] = ()
        outgoing, conditional, established = "", False, False
        src: Prefix | None = None
        marks: dict[MarkKind, MaskedMark] = {}
        for expression in expressions:
            match = expression.get("match")
            if match is None:
                established |= _accepts_established(expression)
                conditional |= not (_decides_or_is_silent(expression) or established)
                continue
            left, right, equal = match["left"], match["right"], match["op"] in ("==", "in")
            if left == {"meta": {"key": "iifname"}} and equal and (names := _names(right)):
                incoming = names
            elif left == {"meta": {"key": "oifname"}} and equal and len(names := _names(right)) == 1:
                outgoing = names[0]
            elif _is_source(left) and equal and (prefix := _prefix(right)) is not None:
                src = prefix
            elif left == _STATE and equal and "established" in _states(right):
                established = True
            elif (kind := _mark_kind(left)) is not None:
                marks[kind] = _compared(kind, match)
                conditional |= marks[kind].mask == 0
            else:
                conditional = True
        return _Matches(
            incoming=incoming,
            outgoing=outgoing,
            src=src,
            mark=marks.get(MarkKind.PACKET),
            flow_mark=marks.get(MarkKind.FLOW),
            established=established,
            conditional=conditional,
        )

    @property
    def asks(self) -> bool:
        """Whether the rule matches less than everything."""
        named = self.incoming or self.outgoing or self.src or self.mark or self.flow_mark
        return bool(named or self.established or self.conditional)


def _key(item: Json) -> TableKey:
    return item["family"], item["table"]


def _place(rule: Json) -> str:
    return f"nft table {rule['family']} {rule['table']}, chain {rule['chain']}, handle {rule['handle']}"


def _decides_or_is_silent(expression: Json) -> bool:
    """Whether a statement narrows nothing: a verdict, a translation, a writing, a counter.

    Of a match of iptables nft tells no more than the name, older ones not even that.
    """
    narrows = ("limit", "quota", "lookup", "vmap", "fib", "ct count")
    if "xt" in expression:
        extension = expression["xt"] or {}
        return extension.get("type") == "target" or extension.get("name") == "comment"
    return not any(name in expression for name in narrows)


def _refuses_all(expressions: Sequence[Json]) -> bool:
    return _effect(expressions) in ("drop", "reject") and not _Matches.of(expressions).asks


def _acceptance(expressions: Sequence[Json]) -> Acceptance | None:
    """Return what a rule lets pass if it asks for links and marks only; several incoming links are one too many."""
    seen = _Matches.of(expressions)
    accepts = _effect(expressions) == "accept" or any(_accepts_established(one) for one in expressions)
    if not accepts or seen.conditional or seen.src is not None or len(seen.incoming) > 1:
        return None
    return Acceptance(
        established=seen.established,
        incoming="".join(seen.incoming),
        outgoing=seen.outgoing,
        mark=seen.mark,
        flow_mark=seen.flow_mark,
    )


def _accepts_established(expression: Json) -> bool:
    """Whether a statement is `ct state vmap { established : accept, ... }`."""
    match expression:
        case {"vmap": {"key": key, "data": {"set": list(pairs)}}} if key == _STATE:
            return any(states == "established" and "accept" in verdict for states, verdict in pairs)
        case _:
            return False


def _states(right: Any) -> list[Any]:
    """Return the states that a match lists."""
    listed = right["set"] if isinstance(right, Mapping) and "set" in right else right
    return listed if isinstance(listed, list) else [listed]


def _effect(expressions: Sequence[Json]) -> str:
    """Return what a rule does in the end: its last statement that decides something."""
    for expression in reversed(expressions):
        name = next(iter(expression))
        if name == "xt" and (expression[name] or {}).get("name") == "REJECT":
            return "reject"
        if name not in _SILENT:
            return name if name not in ("jump", "goto") else f"{name} {expression[name]['target']}"
    return ""


def _touched(expressions: Sequence[Json]) -> Iterator[tuple[MarkKind, MaskedMark, bool]]:
    """Yield kind, bits and whether they are written, of each touching of a mark."""
    for expression in expressions:
        if "match" in expression and (kind := _mark_kind(expression["match"]["left"])) is not None:
            yield kind, _compared(kind, expression["match"]), False
        elif "mangle" in expression and (kind := _mark_kind(expression["mangle"]["key"])) is not None:
            yield kind, _assigned(kind, expression["mangle"]["value"]), True
        else:
            for kind, key in _KEYS.items():
                if _mentions(expression, key):
                    yield kind, MaskedMark(value=Mark(0), mask=Mark(0)), False


def _mark_kind(left: Any) -> MarkKind | None:
    """Return which mark an expression is made of, `mark` or `mark & MASK`."""
    for kind, key in _KEYS.items():
        if left == key or (isinstance(left, Mapping) and "&" in left and left["&"][0] == key):
            return kind
    return None


def _compared(kind: MarkKind, match: Json) -> MaskedMark:
    """Return what a match compares a mark with; mask 0 when that is a set or anything else than a number."""
    left, right = match["left"], match["right"]
    mask = WHOLE_MARK if left == _KEYS[kind] else left["&"][1]
    negated = match["op"] == "!="
    if match["op"] not in ("==", "!=", "in") or not isinstance(right, int) or not isinstance(mask, int):
        return MaskedMark(value=Mark(0), mask=Mark(0))
    return MaskedMark(value=Mark(right), mask=Mark(mask), negated=negated)


def _assigned(kind: MarkKind, value: Any) -> MaskedMark:
    """Return the bits of a mark that an assignment changes; all of them when it can not be told."""
    own = _KEYS[kind]
    if isinstance(value, int):
        return MaskedMark(value=Mark(value))
    match value:
        case {"|": [first, int() as bits]} if first == own:
            return MaskedMark(value=Mark(bits), mask=Mark(bits))
        case {"&": [first, int() as kept]} if first == own:
            return MaskedMark(value=Mark(0), mask=Mark(~kept & WHOLE_MARK))
        case {"^": [first, int() as bits]} if first == own:
            return MaskedMark(value=Mark(bits), mask=Mark(bits))
        case {"|": [{"&": [first, int() as kept]}, int() as bits]} if first == own:
            return MaskedMark(value=Mark(bits), mask=Mark((~kept & WHOLE_MARK) | bits))
        case {"^": [{"&": [first, int() as kept]}, int() as bits]} if first == own:
            return MaskedMark(value=Mark(bits), mask=Mark((~kept & WHOLE_MARK) | bits))
        case _:
            return MaskedMark(value=Mark(0))


def _mentions_key(expression: Any, name: str) -> bool:
    """Whether a statement of this name is part of an expression at any depth."""
    if isinstance(expression, Mapping):
        return name in expression or any(_mentions_key(part, name) for part in expression.values())
    return isinstance(expression, list) and any(_mentions_key(part, name) for part in expression)


def _mentions(expression: Any, key: Json) -> bool:
    """Whether a mark is part of an expression at any depth."""
    if expression == key:
        return True
    parts = expression.values() if isinstance(expression, Mapping) else expression
    return isinstance(expression, Mapping | list) and any(_mentions(part, key) for part in parts)


def _names(right: Any) -> tuple[str, ...]:
    """Return the link names that a match lists; none for a named set, whose content is not looked up."""
    listed = right["set"] if isinstance(right, Mapping) and "set" in right else [right]
    named = isinstance(listed, list) and all(isinstance(name, str) and not name.startswith("@") for name in listed)
    return tuple(listed) if named else ()


def _is_source(left: Any) -> bool:
    return bool(left in [{"payload": {"protocol": protocol, "field": "saddr"}} for protocol in ("ip", "ip6")])


def _prefix(right: Any) -> Prefix | None:
    match right:
        case {"prefix": {"addr": str(address), "len": int(length)}}:
            return ip_network((address, length), strict=False)
        case str() if not right.startswith("@"):
            return ip_network(right)
        case _:
            return None
