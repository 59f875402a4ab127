"""How messages to the user are worded: what they wrote is quoted safely, and the nearest valid name is suggested."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_SHOWN = 80  # characters of a user's text that a message repeats


class Wrong(ValueError):
    """A text is not what its place needs: `text` completes the sentence "VALUE ...", `fix` says what to write."""

    def __init__(self, text: str, fix: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.fix = fix


def quote(text: str) -> str:
    """Return a text in quotes, fit for a terminal: what is not printable is escaped, what is long is cut."""
    shown = "".join(_escaped(letter) for letter in text[:_SHOWN])
    return f'"{shown}"' if len(text) <= _SHOWN else f'"{shown}..." ({len(text)} characters)'


def _escaped(letter: str) -> str:
    if letter in '"\\':
        return "\\" + letter
    return letter if letter.isprintable() else letter.encode("unicode_escape", "backslashreplace").decode()


def printable(path: str) -> str:
    """Return a path as messages show it: what is not printable, or not UTF-8, is escaped."""
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in path)


def plain(name: str) -> str:
    """Return a name of the user without quotes where it is harmless, quoted where it is not."""
    return name if 0 < len(name) <= 253 and name.isprintable() and not set(name) & set(" \"\\'") else quote(name)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known name that a word was probably meant to be; case, `-` and `_` do not count."""
    by_letters = {_letters(name): name for name in known}
    found = difflib.get_close_matches(_letters(word[:_SHOWN]), by_letters, n=1, cutoff=0.6)
    return by_letters[found[0]] if found else None


def _letters(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def instead(word: str, known: Iterable[str]) -> str:
    """Return what to do about an unknown word: the nearest name, or all of them."""
    names = tuple(known)
    found = nearest(word, names)
    return f"did you mean {found}?" if found else f"use one of: {', '.join(names)}"
