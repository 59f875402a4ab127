"""Reasons travel with decisions, so that explaining never means deciding a second time."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a statement of the user stands: a file position, an object, or both. Lines and columns count from 1; 0 is
    unknown.
    """

    file: str = ""
    line: int = 0
    column: int = 0
    kind: str = ""
    namespace: str = ""
    name: str = ""
    field: str = ""
    resource_version: str = ""

    @property
    def object(self) -> str:
        """The object as people write it: `EgressTenant/ns-red`, `Pod/ns-red/app-0`; empty when unknown."""
        return "/".join(part for part in (self.kind, self.namespace, self.name) if part)

    def __str__(self) -> str:
        place = (
            ":".join([self.file, *(str(number) for number in (self.line, self.column) if number)]) if self.file else ""
        )
        return " ".join(part for part in (place, self.object, self.field) if part)


@dataclass(frozen=True, slots=True)
class Because:
    """Why one resource is wanted: the rule that asked for it, a sentence, and the objects and facts the rule read."""

    rule: str
    text: str
    cites: tuple[str, ...] = ()


class Severity(Enum):
    """What a finding asks of the reader."""

    NOTE = "note"
    WARNING = "warning"
    REFUSAL = "refusal"  # the object (or the part that is named) is not in force, and fails closed


@dataclass(frozen=True, slots=True)
class Finding:
    """Something the user should know about one object: a stable reason (CamelCase), a sentence, what to do, and where
    it was said.
    """

    reason: str
    about: str
    text: str
    severity: Severity = Severity.WARNING
    fix: str = ""
    origin: Origin | None = None

    @property
    def sentence(self) -> str:
        """What is the matter and what to do, on one line."""
        return f"{self.text}; {self.fix}" if self.fix else self.text
