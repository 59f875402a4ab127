"""Which intent is in force: the one that was read, unless the brake holds it or an applied one waits for confirmation.

A gate knows no clock and no file: times come in as monotonic seconds, and what it holds is told to the user as
findings.
"""

from __future__ import annotations

from dataclasses import dataclass

from outgate.model.intent import Intent
from outgate.model.ledger import Ledger
from outgate.model.why import Finding
from outgate.plan.brake import braked

SECOND_READING_S = 10.0  # a listing that was cut short, or a directory being rewritten, is whole again by then


@dataclass(frozen=True, slots=True)
class _Held:
    intent: Intent
    since_s: float


class Gate:
    """The intent in force and the one that the brake holds."""

    def __init__(self, gateway: str) -> None:
        self._gateway = gateway
        self._held: _Held | None = None
        self.in_force: Intent | None = None
        self.findings: tuple[Finding, ...] = ()

    @property
    def read_again_s(self) -> float | None:
        """When the held intent should be read a second time, or None."""
        return self._held.since_s + SECOND_READING_S if self._held else None

    def admit(self, intent: Intent, ledger: Ledger, now_s: float, *, sure: bool = False) -> Intent | None:
        """Take a complete reading; return the intent in force, or None while there is none (nothing may change then).

        `sure` is the user's `--yes`.
        """
        reason = None if sure else braked(intent, intent.find_gateway(self._gateway), ledger)
        if reason is None or self._agrees(intent, now_s):
            self._held, self.findings, self.in_force = None, (), intent
            return intent
        if self._held is None or not _same(self._held.intent, intent):
            self._held = _Held(intent, now_s)
        self.findings = (reason,)
        return self.in_force

    def _agrees(self, intent: Intent, now_s: float) -> bool:
        """Whether the held intent was read before, long enough ago, and says the same."""
        held = self._held
        return held is not None and now_s >= held.since_s + SECOND_READING_S and _same(held.intent, intent)


def _same(one: Intent, other: Intent) -> bool:
    """Whether two readings name the same gateways, tenants and nodes."""
    return _names(one) == _names(other)


def _names(intent: Intent) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(item.name for item in items) for items in (intent.gateways, intent.tenants, intent.nodes))
