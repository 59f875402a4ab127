"""What iptables rules do to packets that pass through: the marks they touch, the sources they change, what they refuse.

Priorities of the built-in chains: linux/netfilter_ipv4.h (enum nf_ip_hook_priorities), the same for IPv6.
"""

from __future__ import annotations

from collections.abc import Iterator

from outgate.model.firewall import (
    Acceptance,
    HookChain,
    IptablesRule,
    MarkKind,
    MarkUse,
    MaskedMark,
    SourceNat,
    Variant,
    program,
)
from outgate.model.net import Mark
from outgate.systems.iptables.save import Saved, mark_of

_PRIORITIES = {"raw": -300, "mangle": -150, "filter": 0, "security": 50}
_NAT_PRIORITIES = {"prerouting": -100, "input": 100, "output": -100, "postrouting": 100}
_HOOKS = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
_SOURCE_NATS = ("SNAT", "MASQUERADE", "NETMAP")
_REFUSALS = ("DROP", "REJECT")


def hook_of(table: str, chain: str) -> tuple[str, int]:
    """Return hook and priority of a built-in chain; a chain of a user has neither ("", 0)."""
    if chain not in _HOOKS:
        return "", 0
    hook = chain.lower()
    return hook, _NAT_PRIORITIES[hook] if table == "nat" else _PRIORITIES.get(table, 0)


def hook_chains(saved: Saved, *, version: int, variant: Variant) -> Iterator[HookChain]:
    """Yield the built-in chains, with what their rules let pass and whether the rest is refused."""
    for (table, name), policy in saved.policies.items():
        hook, priority = hook_of(table, name)
        mine = [rule for rule in saved.rules if (rule.table, rule.chain) == (table, name)]
        yield HookChain(
            place=f"{program(version, variant)} -t {table}, {name}",
            hook=hook,
            priority=priority,
            version=version,
            refuses=policy == "DROP" or any(rule.target in _REFUSALS and not _asks(rule) for rule in mine),
            jumps=any((table, rule.target) in saved.users for rule in mine),
            accepts=tuple(_acceptances(mine)),
        )


def source_nats(rules: tuple[IptablesRule, ...]) -> Iterator[SourceNat]:
    """Yield the rules that give packets another source."""
    for rule in rules:
        if rule.table == "nat" and rule.target in _SOURCE_NATS:
            yield SourceNat(
                place=f"{rule.place} ({rule.line})",
                priority=_NAT_PRIORITIES["postrouting"],
                src=rule.src,
                incoming=rule.incoming,
                outgoing=rule.outgoing,
                mark=rule.mark,
                conditional=bool(rule.dst or rule.flow_mark or rule.more) or rule.chain not in _HOOKS,
            )


def mark_uses(rules: tuple[IptablesRule, ...]) -> Iterator[MarkUse]:
    """Yield every reading and writing of a mark."""
    for rule in rules:
        if rule.mark is not None:
            yield _use(rule, MarkKind.PACKET, rule.mark, writes=False)
        if rule.flow_mark is not None:
            yield _use(rule, MarkKind.FLOW, rule.flow_mark, writes=False)
        written = _written(rule)
        if written is not None:
            yield _use(rule, *written, writes=True)


def _asks(rule: IptablesRule) -> bool:
    """Whether a rule matches less than everything."""
    return bool(rule.incoming or rule.outgoing or rule.src or rule.dst or rule.mark or rule.flow_mark or rule.more)


def _acceptances(rules: list[IptablesRule]) -> Iterator[Acceptance]:
    for rule in rules:
        established = _asks_established(rule)
        if rule.target == "ACCEPT" and not (rule.src or rule.dst) and (established or not rule.more):
            yield Acceptance(
                established=established,
                incoming=rule.incoming,
                outgoing=rule.outgoing,
                mark=rule.mark,
                flow_mark=rule.flow_mark,
            )


def _asks_established(rule: IptablesRule) -> bool:
    """Whether a rule asks for packets of standing flows, and for nothing else beside links and marks."""
    module, *asked = rule.more or ("",)
    if module not in ("-m conntrack", "-m state") or len(asked) != 1:
        return False
    option, _, states = asked[0].partition(" ")
    return option in ("--ctstate", "--state") and "ESTABLISHED" in states.split(",")


def _written(rule: IptablesRule) -> tuple[MarkKind, MaskedMark] | None:
    """Return what a MARK or CONNMARK target writes."""
    if rule.target == "MARK":
        return MarkKind.PACKET, _given(rule)
    if rule.target != "CONNMARK":
        return None
    if "--restore-mark" in rule.arguments:
        return MarkKind.PACKET, _copied(rule, "--nfmask")
    if "--save-mark" in rule.arguments:
        return MarkKind.FLOW, _copied(rule, "--ctmask")
    return MarkKind.FLOW, _given(rule)


def _given(rule: IptablesRule) -> MaskedMark:
    """Return the bits that `--set-xmark VALUE/MASK` changes: it clears those of the mask and flips those of the value.

    All of them when it can not be told.
    """
    text = rule.argument("--set-xmark") or rule.argument("--set-mark") or ""
    try:
        value, mask = mark_of(text)
    except ValueError:
        return MaskedMark(value=Mark(0))
    return MaskedMark(value=value, mask=Mark(mask | value))


def _copied(rule: IptablesRule, name: str) -> MaskedMark:
    """Return the bits that a copy from the other mark changes; their values are not known here."""
    try:
        return MaskedMark(value=Mark(0), mask=mark_of(rule.argument(name) or "")[0])
    except ValueError:
        return MaskedMark(value=Mark(0))


def _use(rule: IptablesRule, kind: MarkKind, mark: MaskedMark, *, writes: bool) -> MarkUse:
    hook, priority = hook_of(rule.table, rule.chain)
    return MarkUse(
        kind=kind,
        writes=writes,
        value=mark.value,
        mask=mark.mask,
        place=f"{rule.place} ({rule.line})",
        hook=hook,
        priority=priority,
        incoming=(rule.incoming,) if rule.incoming else (),
        effect=rule.target,
        negated=mark.negated,
        conditional=bool(rule.outgoing or rule.src or rule.dst or rule.more),
    )
