"""The words for pods that leave as somebody else than an egress IP, though their namespace has an EgressIP."""

from __future__ import annotations

from dataclasses import dataclass

from outgate.model.net import Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """One address of a pod (None: it has none yet), what the world sees of it (None: its own address), and why.

    `of` is the node or object whose address that is. `is_meant`: somebody has written it so.
    """

    pod: str
    address: Address | None
    seen_as: Address | None
    of: str
    why: str
    is_meant: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Unserved:
    """All of them; with `seen`, those that the world sees as that address, whose it is (`owner`), and how many pods
    without any EgressIP are seen as it too.
    """

    leaving: tuple[Leaving, ...]
    seen: Address | None = None
    owner: str = ""
    ordinary: int = 0
