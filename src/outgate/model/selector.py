"""Label selectors, as in Kubernetes: what they are, and whether labels satisfy them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

Labels: TypeAlias = tuple[tuple[str, str], ...]  # sorted by key


class Operator(Enum):
    """Operators of a label expression, as in Kubernetes."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


@dataclass(frozen=True, slots=True)
class LabelExpression:
    """One `matchExpressions` entry."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether labels satisfy it; `NotIn` holds where the key is absent, as in Kubernetes."""
        match self.operator:
            case Operator.IN:
                return labels.get(self.key) in self.values
            case Operator.NOT_IN:
                return labels.get(self.key) not in self.values
            case Operator.EXISTS:
                return self.key in labels
            case Operator.DOES_NOT_EXIST:
                return self.key not in labels


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """A label selector. An empty one selects nothing: what nobody wrote must not grant an egress IP."""

    match_labels: Labels = ()
    expressions: tuple[LabelExpression, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether nothing was asked."""
        return not self.match_labels and not self.expressions

    def matches(self, labels: Labels) -> bool:
        """Return whether an object with these labels is selected."""
        if self.empty:
            return False
        have = dict(labels)
        return all(have.get(key) == value for key, value in self.match_labels) and all(
            expression.matches(have) for expression in self.expressions
        )


EVERYTHING = LabelSelector(expressions=(LabelExpression("", Operator.DOES_NOT_EXIST),))  # no label has an empty key
