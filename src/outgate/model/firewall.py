"""What other programs' firewalls say, as far as it can touch a tenant's packet: iptables rules and foreign nftables.

Source of the words: iptables-extensions(8) as `iptables-save` prints them, and libnftables-json(5). Only what a
decision reads is a field; everything else of a rule is kept as the words it was written in, so that a rule can be shown
to its owner exactly as he knows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from outgate.model.net import Mark, Prefix

WHOLE_MARK = Mark(0xFFFFFFFF)


class Variant(Enum):
    """Which iptables wrote a rule: the two share a syntax and nothing else, and both may hold rules at once."""

    NFT = "nf_tables"
    LEGACY = "legacy"


def program(version: int, variant: Variant) -> str:
    """Return the command that shows and changes a family's rules of one variant; plain `iptables` may be either."""
    return ("iptables" if version == 4 else "ip6tables") + ("-nft" if variant is Variant.NFT else "-legacy")


class MarkKind(Enum):
    """Which mark a rule reads or writes."""

    PACKET = "packet mark"
    FLOW = "flow mark"  # of connection tracking


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkUse:
    """A rule that reads a mark (does `mark & mask` equal `value`?) or writes one (the bits of `mask` become `value`).

    What is not known statically (a mark taken from a map, or compared with a set) is taken at its widest: it reads with
    mask 0, which every mark satisfies, and writes all bits. `hook` and `priority` are those of its chain; a chain
    that is only jumped to has none. `incoming` are the links it is limited to, wildcards as written; empty is all.
    `effect` is what happens to the packet: a verdict or target. `conditional`: it asks for more than marks and links.
    """

    kind: MarkKind
    writes: bool
    value: Mark
    mask: Mark
    place: str
    hook: str = ""
    priority: int = 0
    incoming: tuple[str, ...] = ()
    effect: str = ""
    negated: bool = False
    conditional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedMark:
    """A value under a mask, as `-m mark --mark` says it; negated by `!`."""

    value: Mark
    mask: Mark = WHOLE_MARK
    negated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class IptablesRule:
    """One rule of one chain. `number` counts from 1 within its chain, as `iptables -D CHAIN NUMBER` does.

    A match that is negated is not a field but among `more`, in its own words: no decision may take it for its opposite.
    `line` is the rule exactly as `iptables-save` printed it.
    """

    version: int  # 4 or 6
    variant: Variant
    table: str
    chain: str
    number: int
    line: str
    incoming: str = ""  # link, with a trailing `+` for "all that begin so"; empty is any
    outgoing: str = ""
    src: Prefix | None = None
    dst: Prefix | None = None
    mark: MaskedMark | None = None
    flow_mark: MaskedMark | None = None
    more: tuple[str, ...] = ()
    target: str = ""
    arguments: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """Where the rule stands, as a person looks it up: `iptables-nft -t nat, POSTROUTING rule 1`."""
        return f"{program(self.version, self.variant)} -t {self.table}, {self.chain} rule {self.number}"

    def argument(self, name: str) -> str | None:
        """Return the word behind an argument of the target (`--to-source`), or None."""
        words = dict(zip(self.arguments, self.arguments[1:], strict=False))
        return words.get(name)

    def __str__(self) -> str:
        return f"{self.place}: {self.line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HookChain:
    """A hooked chain of somebody else, iptables' and nftables' alike. Lower priority runs first.

    `refuses`: what no rule decides is dropped, by the chain's policy or by a last rule that asks for nothing. `jumps`:
    rules of other chains decide too; those are not listed here. `version` None: it sees IPv4 and IPv6.
    """

    place: str
    hook: str
    priority: int
    version: int | None = None
    refuses: bool = False
    jumps: bool = False
    accepts: tuple[Acceptance, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """What a rule of a hooked chain lets pass without asking for more than this; empty words are any.

    `established`: only packets of flows that stand.
    """

    established: bool = False
    incoming: str = ""
    outgoing: str = ""
    mark: MaskedMark | None = None
    flow_mark: MaskedMark | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceNat:
    """A rule of somebody else that gives packets another source when they leave. Empty words and None are any.

    `conditional`: it asks for more than these words say, so it may match less.
    """

    place: str
    priority: int
    src: Prefix | None = None
    incoming: str = ""
    outgoing: str = ""
    mark: MaskedMark | None = None
    conditional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Firewall:
    """All that other programs hold. What is not read is not known to be empty: `unread` names the parts whose program
    is not installed, `failed` those whose program did not answer, each in a sentence.
    """

    rules: tuple[IptablesRule, ...] = ()  # of both iptables variants
    chains: tuple[HookChain, ...] = ()
    nats: tuple[SourceNat, ...] = ()
    marks: tuple[MarkUse, ...] = ()
    unread: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
