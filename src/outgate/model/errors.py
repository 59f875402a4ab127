"""The errors that cross rooms, one class per thing that the caller can do about them.

`control` has one place for each; bugs are never caught. A message says what, where, and what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # every command imports this module, and making dataclasses takes milliseconds
    from outgate.model.why import Origin


class OutgateError(Exception):
    """Any error that outgate raises on purpose."""


class IntentError(OutgateError):
    """The user must change something; `origin` says where."""

    def __init__(self, text: str, origin: Origin | None = None) -> None:
        super().__init__(f"{origin}: {text}" if origin else text)
        self.text = text
        self.origin = origin


class NotReady(OutgateError):
    """A part of the snapshot is missing; wait for it, and change nothing meanwhile."""


class Unreachable(OutgateError):
    """A system does not answer; back off."""


class Refused(OutgateError):
    """A system said no: `change` is what was asked, `words` are the system's own."""

    def __init__(self, change: str, words: str) -> None:
        super().__init__(f"{change}: {words}")
        self.change = change
        self.words = words


class NotConverged(OutgateError):
    """The second reading still finds changes; `left` names them."""

    def __init__(self, left: tuple[str, ...]) -> None:
        shown = "; ".join(left[:5]) + (f" and {len(left) - 5} more" if len(left) > 5 else "")
        super().__init__(f"after writing, {len(left)} changes are left: {shown}")
        self.left = left
