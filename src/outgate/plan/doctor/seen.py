"""What a check is given, and what it says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from outgate.model.check import Grade
from outgate.model.firewall import Firewall
from outgate.model.host import Host
from outgate.model.intent import EgressGateway
from outgate.model.net import LinkName, LinkSetting, Mark, Prefix, Setting, TenantLink
from outgate.model.ruleset import Table
from outgate.model.state import Desired, Reading, Resource, Snapshot
from outgate.model.why import Finding, Severity
from outgate.plan.guard import protected


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """One thing that a check found."""

    grade: Grade
    about: str
    text: str
    fix: str = ""


Troubles: TypeAlias = Iterator[Trouble]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """All that a check may look at. `gateway` is the one that this machine is."""

    snapshot: Snapshot
    desired: Desired
    reading: Reading
    host: Host
    firewall: Firewall
    gateway: EgressGateway

    @property
    def in_force(self) -> bool:
        """Whether outgate has done its work here: before, what it would do is looked at."""
        return any(isinstance(resource, Table) for resource in self.reading.actual)

    @property
    def standing(self) -> Iterable[Resource]:
        """What the machine holds of ours, or would hold."""
        return self.reading.actual if self.in_force else self.desired.wants

    @property
    def inner(self) -> tuple[LinkName, ...]:
        """The inner NICs."""
        return tuple(nic.interface for nic in self.gateway.inner)

    @property
    def tenant_links(self) -> tuple[LinkName, ...]:
        """The links on which next-hop tenants arrive, those under adoption too."""
        ours = (resource.name for resource in self.desired.wants if isinstance(resource, TenantLink))
        return (*sorted(ours), *sorted(self.snapshot.ledger.adopting))

    @property
    def marks(self) -> tuple[Mark, ...]:
        """The marks of all tenants."""
        return tuple(sorted(allocation.mark for allocation in self.snapshot.ledger.tenants.values()))

    @property
    def protected(self) -> Mapping[Prefix, str]:
        """The protected ranges, each with who says so."""
        return protected(self.snapshot.intent, self.gateway, self.snapshot.ledger)

    def setting(self, link: LinkName, setting: Setting) -> int | None:
        """Return a kernel setting as it is now, None where the kernel has none."""
        return self.reading.facts.settings.get((link, setting))

    def wanted_settings(self, *settings: Setting) -> Iterator[LinkSetting]:
        """Yield what outgate wants of these settings."""
        for resource in self.desired.wants:
            if isinstance(resource, LinkSetting) and resource.setting in settings:
                yield resource


def trouble_of(finding: Finding, grade: Grade | None = None) -> Trouble:
    """Return a finding as a trouble; by its severity, unless a grade is given."""
    by_severity = Grade.FAIL if finding.severity is Severity.REFUSAL else Grade.WARN
    return Trouble(grade=grade or by_severity, about=finding.about, text=finding.text, fix=finding.fix)


def fail(about: str, text: str, fix: str = "") -> Trouble:
    """Return a trouble that leaves somebody unserved or unguarded."""
    return Trouble(grade=Grade.FAIL, about=about, text=text, fix=fix)


def warn(about: str, text: str, fix: str = "") -> Trouble:
    """Return a trouble that may become one."""
    return Trouble(grade=Grade.WARN, about=about, text=text, fix=fix)


def listed(items: Iterable[object], most: int = 5) -> str:
    """Return items as a list in words, the first ones only when there are many."""
    every = [str(item) for item in items]
    shown = ", ".join(every[:most])
    return f"{shown} and {len(every) - most} more" if len(every) > most else shown
