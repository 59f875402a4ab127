"""The text of `iptables-save` as typed rules.

A line is a chain (`:FORWARD DROP [0:0]`) or a rule (`-A FORWARD -i eth0 -m mark --mark 0x1 -j DROP`) of the table that
the last `*filter` line named. What is after `-j TARGET` belongs to the target. Source: iptables-save(8).
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from types import MappingProxyType

from outgate.model.firewall import WHOLE_MARK, IptablesRule, MaskedMark, Variant
from outgate.model.net import Mark, Prefix

_FREE_TEXT = {"--comment", "--string", "--hex-string"}  # their value may look like an option


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """One listing: its rules in order, the policies of its built-in chains, its users' chains, the tables it names.

    Chains are told by table and name.
    """

    rules: tuple[IptablesRule, ...] = ()
    policies: Mapping[tuple[str, str], str] = field(default_factory=lambda: MappingProxyType({}))
    users: frozenset[tuple[str, str]] = frozenset()
    tables: frozenset[str] = frozenset()


def parse(text: str, *, version: int, variant: Variant) -> Saved:
    """Return what a listing says. Comments, counters and lines of an unknown form are passed over."""
    table = ""
    tables: set[str] = set()
    policies: dict[tuple[str, str], str] = {}
    users: set[tuple[str, str]] = set()
    rules: list[IptablesRule] = []
    numbers: Counter[tuple[str, str]] = Counter()
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
            tables.add(table)
        elif line.startswith(":"):
            name, policy, *_ = [*line[1:].split(), "-", "-"]
            if policy == "-":
                users.add((table, name))
            else:
                policies[table, name] = policy
        elif line.startswith("-A "):
            chain, words = _words(line)
            numbers[table, chain] += 1
            blank = IptablesRule(
                version=version, variant=variant, table=table, chain=chain, number=numbers[table, chain], line=line
            )
            rules.append(_rule(blank, words))
    return Saved(
        rules=tuple(rules), policies=MappingProxyType(policies), users=frozenset(users), tables=frozenset(tables)
    )


def mark_of(text: str) -> tuple[Mark, Mark]:
    """Return value and mask of `0xa` or `0xa/0xff`.

    Raises:
        ValueError: it is neither.
    """
    value, _, mask = text.partition("/")
    return Mark(int(value, 0)), Mark(int(mask, 0)) if mask else WHOLE_MARK


def _words(line: str) -> tuple[str, list[str]]:
    """Return chain and words of a rule; iptables quotes and escapes what has blanks."""
    try:
        _, chain, *words = shlex.split(line)
    except ValueError:  # an odd quote within a comment: the words are still worth showing
        _, chain, *words = line.split()
    return chain, words


@dataclass(slots=True)
class _Matches:
    """The matches of a rule, gathered word by word."""

    incoming: str = ""
    outgoing: str = ""
    src: Prefix | None = None
    dst: Prefix | None = None
    mark: MaskedMark | None = None
    flow_mark: MaskedMark | None = None
    more: list[str] = field(default_factory=list)

    def take(self, option: str, module: str, values: list[str], *, negated: bool) -> None:
        """Take one option; what no decision reads, or is negated, is kept in its words."""
        if option == "-m" and values[0] in ("mark", "connmark"):
            return  # what it matches follows
        try:
            if self._understand(option, module, values[0], negated=negated):
                return
        except ValueError:  # a mask with holes, or a word of a later version: shown, not decided by
            pass
        self.more.append(" ".join([*(["!"] if negated else []), option, *values]).rstrip())

    def _understand(self, option: str, module: str, value: str, *, negated: bool) -> bool:
        match option, module:
            case "-i", _ if not negated:
                self.incoming = value
            case "-o", _ if not negated:
                self.outgoing = value
            case "-s", _ if not negated:
                self.src = ip_network(value, strict=False)
            case "-d", _ if not negated:
                self.dst = ip_network(value, strict=False)
            case "--mark", "mark" if self.mark is None:
                self.mark = _masked(value, negated=negated)
            case "--mark", "connmark" if self.flow_mark is None:
                self.flow_mark = _masked(value, negated=negated)
            case _:
                return False
        return True


def _masked(text: str, *, negated: bool) -> MaskedMark:
    value, mask = mark_of(text)
    return MaskedMark(value=value, mask=mask, negated=negated)


def _rule(blank: IptablesRule, words: list[str]) -> IptablesRule:
    """Return the rule with its words taken apart."""
    found = _Matches()
    target, arguments = "", tuple[str, ...]()
    for option, module, values, negated in _options(words):
        if option in ("-j", "-g"):
            target, *rest = values
            arguments = tuple(rest)
        else:
            found.take(option, module, values, negated=negated)
    return replace(
        blank,
        incoming=found.incoming,
        outgoing=found.outgoing,
        src=found.src,
        dst=found.dst,
        mark=found.mark,
        flow_mark=found.flow_mark,
        more=tuple(found.more),
        target=target,
        arguments=arguments,
    )


def _options(words: list[str]) -> Iterator[tuple[str, str, list[str], bool]]:
    """Yield each option with the module it belongs to, its values, and whether it is negated."""
    at, module = 0, ""
    while at < len(words):
        negated = words[at] == "!"
        at += negated
        if at == len(words):
            return
        option, start = words[at], at + 1
        if option in ("-j", "-g"):
            yield option, "", words[start:] or [""], False
            return
        end = start + 1 if option in _FREE_TEXT else start
        while end < len(words) and option not in _FREE_TEXT and not words[end].startswith("-") and words[end] != "!":
            end += 1
        values = words[start:end] or [""]
        if option == "-m":
            module = values[0]
        yield option, module, values, negated
        at = end
