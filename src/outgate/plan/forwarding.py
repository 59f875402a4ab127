"""Whether other people's firewalls let packets through this machine, as far as their chains say so themselves.

Only what a chain accepts without asking for more than links, marks and the state of a flow counts: a packet of any
address, protocol and port passes then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from outgate.model.firewall import Acceptance, Firewall, HookChain, MaskedMark
from outgate.model.net import LinkName, Mark, Setting


def refusing(firewall: Firewall, version: int, incoming: LinkName, outgoing: LinkName) -> tuple[HookChain, ...]:
    """Return the chains that do not let new flows out by a link, or their answers back.

    The packets' marks are not known, so a rule that asks for one counts for nothing; what a chain that is jumped to
    accepts is not known either.
    """
    return tuple(
        chain
        for chain in firewall.chains
        if chain.hook == "forward"
        and chain.refuses
        and chain.version in (version, None)
        and not _passes_both_ways(chain, incoming, outgoing)
    )


def accepting(chain: HookChain, nft: str, iptables: str) -> str:
    """Return the command that adds a rule before all others of a chain, by its match in either language."""
    if not chain.place.startswith("nft "):
        program, _, place = chain.place.partition(" ")
        table, _, name = place.partition(", ")
        return f"{program} {table} -I {name} {iptables} -j ACCEPT"
    table, _, name = chain.place.removeprefix("nft table ").partition(", chain ")
    return f"nft insert rule {table} {name} {nft} accept"


def not_forwarding(
    settings: Mapping[tuple[LinkName, Setting], int], version: int, links: Iterable[LinkName]
) -> LinkName | None:
    """Return the first link that is known not to forward a family; None: all may."""
    forwarding = Setting.FORWARDING if version == 4 else Setting.FORWARDING6
    return next((link for link in links if settings.get((link, forwarding)) == 0), None)


def in_words(chains: Iterable[HookChain], incoming: LinkName) -> tuple[str, str]:
    """Return which chains drop packets that come in by a link, and the commands that let them out and back."""
    shown = ", ".join(
        chain.place + (" (unless a chain that it jumps to accepts them)" if chain.jumps else "") for chain in chains
    )
    ways = ((f'iifname "{incoming}"', f"-i {incoming}"), (f'oifname "{incoming}"', f"-o {incoming}"))
    return shown, "; ".join(accepting(chain, *words) for chain in chains for words in ways)


def _passes_both_ways(chain: HookChain, incoming: LinkName, outgoing: LinkName) -> bool:
    fresh = (one for one in chain.accepts if not one.established)
    return _passes(fresh, incoming, outgoing) and _passes(chain.accepts, outgoing, incoming)


def _passes(accepts: Iterable[Acceptance], incoming: LinkName, outgoing: LinkName) -> bool:
    return any(
        one.mark is None and one.flow_mark is None and names(one.incoming, incoming) and names(one.outgoing, outgoing)
        for one in accepts
    )


def accepts_mark(accept: Acceptance, mark: Mark) -> bool:
    """Return whether an acceptance takes packets whose flow and packet have this mark."""
    return all(asked is None or matches(asked, mark) for asked in (accept.mark, accept.flow_mark))


def matches(asked: MaskedMark, mark: Mark) -> bool:
    """Return whether a packet with this mark is matched."""
    return ((mark & asked.mask) == asked.value) != asked.negated


def names(pattern: str, link: str) -> bool:
    """Return whether a pattern of iptables (`og-+`) or nftables (`og-*`) names a link; an empty one names all."""
    return not pattern or (link.startswith(pattern[:-1]) if pattern[-1] in "+*" else link == pattern)
