"""Checks of other people's firewalls: marks that overlap ours, chains that refuse, translations that come first."""

from __future__ import annotations

from collections.abc import Iterable

from outgate.model.check import Grade
from outgate.model.firewall import Acceptance, HookChain, MarkKind, MarkUse, MaskedMark, SourceNat
from outgate.model.net import OWN_MASK, TENANT_MASK, LinkName, Mark
from outgate.plan.doctor.seen import Seen, Trouble, Troubles, fail, listed, warn
from outgate.plan.forwarding import accepting, accepts_mark, matches, names

OWN_ENTER = -145  # priority of our chain that gives marks (mangle + 5): a packet mark written before it is cleared
OWN_TRANSLATION = 99  # of our chain that translates (srcnat - 1): of several the first that matches wins
_HARMLESS = ("ACCEPT", "RETURN", "LOG", "NFLOG", "accept", "return", "log", "counter", "")
_LOCAL_HOOKS = ("input", "output")  # what passes through the machine meets neither


def foreign_marks(seen: Seen) -> Troubles:
    """Name foreign rules that write bits of ours on tenants' packets, or act on packets that have a tenant's mark."""
    for use in seen.firewall.marks:
        if use.hook in _LOCAL_HOOKS or not _reaches(use.incoming, _our_links(seen)):
            continue
        if use.writes and use.mask & OWN_MASK and not _cleared(use):
            text = f"it writes {use.kind.value} bits {use.mask & OWN_MASK:#x}, by which outgate tells tenants"
            fix = f"let it use bits outside {OWN_MASK:#010x}, or limit it to other links"
            certain = bool(use.hook) and not use.conditional
            yield (fail if certain else warn)(use.place, text, fix)
        elif not use.writes and use.effect not in _HARMLESS and use.effect.split()[0] not in ("mangle", "MARK"):
            yield from _read(use, seen.marks)


def refusing_chains(seen: Seen) -> Troubles:
    """Name foreign forward chains that would drop tenants' packets."""
    for chain in seen.firewall.chains:
        if chain.hook != "forward" or not chain.refuses or not _serves_something(seen):
            continue
        lost = [
            name
            for name, passes in (("to outside", _passes_out), ("back to pods", _passes_back))
            if not passes(seen, chain)
        ]
        if lost:
            text = f"what no rule of it accepts is dropped, tenants' packets {' and '.join(lost)} too"
            text += ", unless a chain that it jumps to accepts them" if chain.jumps else ""
            yield (warn if chain.jumps else fail)(chain.place, text, _accepting(chain))


def earlier_translations(seen: Seen) -> Troubles:
    """Name foreign rules that could give tenants' packets another source before ours do."""
    for nat in seen.firewall.nats:
        if nat.priority > OWN_TRANSLATION or not _translates_tenants(seen, nat):
            continue
        text = (
            "it may translate tenants' packets before outgate does; the guard drops what leaves with a strange address"
        )
        fix = f"let it leave out packets with a mark in {TENANT_MASK:#010x}, or name its own sources"
        yield (warn if nat.conditional else fail)(nat.place, text, fix)


def unread(seen: Seen) -> Troubles:
    """Say what was not read; a program that is not installed is no fault, but its rules could stand all the same."""
    for sentence in seen.firewall.failed:
        yield warn("not read", sentence, "run doctor as root")
    for sentence in seen.firewall.unread:
        yield Trouble(grade=Grade.OK, about="not read", text=sentence)


def _read(use: MarkUse, marks: tuple[Mark, ...]) -> Troubles:
    """Say whether a rule that reads a mark acts on a tenant's packets now, or could when numbers are given."""
    asked = MaskedMark(value=use.value, mask=use.mask, negated=use.negated)
    hit = [mark for mark in marks if matches(asked, mark)]
    what = f"it does {use.effect} to packets whose {use.kind.value} is {shown(asked)}"
    fix = f"let it ask for bits outside {OWN_MASK:#010x}, or limit it to other links"
    if hit and not use.conditional and use.hook and use.mask:
        yield fail(use.place, f"{what}, as tenants' are ({listed(map(hex, hit))})", fix)
    elif hit or could_match(asked):
        yield warn(use.place, f"{what}, as tenants' may be", fix)


def could_match(asked: MaskedMark) -> bool:
    """Return whether some tenant's mark, given now or later, would be matched: marks have a tenant's number in
    TENANT_MASK and nothing outside it.
    """
    if asked.negated:
        return True
    outside = asked.value & asked.mask & ~TENANT_MASK
    nobody = asked.mask & TENANT_MASK == TENANT_MASK and asked.value & TENANT_MASK == 0
    return not outside and not nobody


def shown(asked: MaskedMark) -> str:
    """Return what is asked of a mark as people write it: `0xa`, `not 0x4000/0x4000`."""
    if not asked.mask:
        return "one of several"
    value = f"{asked.value:#x}" + ("" if asked.mask == 0xFFFFFFFF else f"/{asked.mask:#x}")
    return f"not {value}" if asked.negated else value


def _cleared(use: MarkUse) -> bool:
    """Whether our own chain comes later and clears what this rule has written to packets."""
    return use.kind is MarkKind.PACKET and use.hook == "prerouting" and use.priority < OWN_ENTER


def _our_links(seen: Seen) -> tuple[LinkName, ...]:
    return (*seen.inner, *seen.tenant_links, *seen.gateway.uplinks)


def _reaches(patterns: Iterable[str], links: Iterable[LinkName]) -> bool:
    """Whether a rule that is limited to these links (none: to all) sees one of ours."""
    named = tuple(patterns)
    return not named or any(names(pattern, link) for pattern in named for link in links)


def _serves_something(seen: Seen) -> bool:
    return bool(seen.marks)


def _passes_out(seen: Seen, chain: HookChain) -> bool:
    """Whether a chain accepts the first packet of every tenant out of every uplink."""
    fresh = [accept for accept in chain.accepts if not accept.established]
    return _all_accepted(fresh, (*seen.inner, *seen.tenant_links), seen.gateway.uplinks, seen.marks)


def _passes_back(seen: Seen, chain: HookChain) -> bool:
    """Whether a chain accepts every tenant's replies: they have the tenant's mark too."""
    return _all_accepted(chain.accepts, seen.gateway.uplinks, seen.inner, seen.marks)


def _all_accepted(
    accepts: Iterable[Acceptance], incoming: Iterable[LinkName], outgoing: Iterable[LinkName], marks: tuple[Mark, ...]
) -> bool:
    rules = [accept for accept in accepts if all(accepts_mark(accept, mark) for mark in marks)]
    ways = [(one, other) for one in incoming for other in outgoing]
    return all(any(names(rule.incoming, one) and names(rule.outgoing, other) for rule in rules) for one, other in ways)


def _accepting(chain: HookChain) -> str:
    """Return the command that lets tenants' packets pass, both ways, and nothing else: only their flows have a mark."""
    return accepting(
        chain,
        nft=f"ct mark and {TENANT_MASK:#x} != 0",
        iptables=f"-m connmark ! --mark 0x0/{TENANT_MASK:#x}",
    )


def _translates_tenants(seen: Seen, nat: SourceNat) -> bool:
    links = (*seen.inner, *seen.tenant_links)
    from_pods = nat.src is None or any(
        prefix.version == nat.src.version and nat.src.overlaps(prefix) for prefix in seen.protected
    )
    if not from_pods or not any(names(nat.incoming, link) for link in links):
        return False
    leaves = any(names(nat.outgoing, uplink) for uplink in seen.gateway.uplinks)
    return leaves and (nat.mark is None or any(matches(nat.mark, mark) for mark in seen.marks))
