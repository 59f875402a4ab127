"""Text for people: columns that align, lines that fit the terminal, colour only where it is asked for.

Nothing here knows a terminal or the environment; width and style come in. What is printed may hold names that others
chose, so control characters are spelled out before anything is measured or coloured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from textwrap import wrap

MANY = 10  # rows of a long list that are shown, before "and N more"
NARROWEST = 40  # columns; below this nothing can be aligned


class Tone(Enum):
    """What a word means to the reader; the codes are those of ECMA-48 (select graphic rendition)."""

    PLAIN = ""
    STRONG = "1"
    FAINT = "2"
    GOOD = "32"
    WARN = "33"
    BAD = "31"
    NAME = "36"


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How to write: whether in colour, how wide, and whether lists are cut."""

    colour: bool = False
    width: int = 120
    whole: bool = False  # no list is cut, nothing is folded

    def paint(self, text: str, tone: Tone) -> str:
        """Return text in a tone; unchanged without colour."""
        return f"\x1b[{tone.value}m{text}\x1b[0m" if self.colour and tone.value and text else text


PLAIN = Style()


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table: text and tone."""

    text: str
    tone: Tone = Tone.PLAIN


Row = Sequence[str | Cell]


def clean(text: str) -> str:
    """Return text with every character that a terminal would obey spelled out."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def columns(rows: Iterable[Row], style: Style, *, indent: int = 0, gap: int = 2) -> list[str]:
    """Return rows as lines whose cells align. The last cell takes what is left of the width, wrapped if need be."""
    table = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
    table = [[Cell(clean(cell.text), cell.tone) for cell in row] for row in table]
    widths: list[int] = []
    for row in table:
        for place, cell in enumerate(row[:-1]):
            widths += [0] * (place + 1 - len(widths))
            widths[place] = max(widths[place], len(cell.text))
    return [line for row in table for line in _line(row, widths, style, indent=indent, gap=gap)]


def paragraph(text: str, style: Style, *, indent: int = 0, tone: Tone = Tone.PLAIN) -> list[str]:
    """Return text as lines that fit."""
    return columns([[Cell(text, tone)]], style, indent=indent)


def cut(items: Sequence[str], style: Style, *, most: int = MANY) -> list[str]:
    """Return the first items, and how many more there are."""
    if style.whole or len(items) <= most + 1:  # one more line is no longer than "and 1 more"
        return list(items)
    return [*items[:most], f"and {len(items) - most} more"]


def count(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun: `1 change`, `1,204 packets`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def large(number: int | None, unit: str = "") -> str:
    """Return a number in four characters or so: 812, 8.1k, 12M; a dash when nobody counted."""
    if number is None:
        return "-"
    size, step = float(number), 0
    while size >= 999.5 and step < 5:
        size, step = size / 1000, step + 1
    shown = f"{number}" if not step else f"{size:.1f}" if size < 9.95 else f"{size:.0f}"
    return shown + ("", "k", "M", "G", "T", "P")[step] + unit


def ago(seconds: float | None) -> str:
    """Return an age: `3s`, `12m`, `4h`, `12d`; `never` for None."""
    if seconds is None:
        return "never"
    for size, unit, least in ((86400, "d", 172800), (3600, "h", 7200), (60, "m", 120)):
        if seconds >= least:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s" if seconds >= 10 else f"{seconds:.1f}s".replace(".0s", "s")


def duration(seconds: float) -> str:
    """Return how long something has been going on: `12d 04:11`, `04:11:09`."""
    days, rest = divmod(int(seconds), 86400)
    hours, rest = divmod(rest, 3600)
    minutes, left = divmod(rest, 60)
    return f"{days}d {hours:02}:{minutes:02}" if days else f"{hours:02}:{minutes:02}:{left:02}"


def _line(row: Sequence[Cell], widths: Sequence[int], style: Style, *, indent: int, gap: int) -> list[str]:
    *heads, last = row
    left, start = " " * indent, indent
    for place, cell in enumerate(heads):
        taken = widths[place] + gap if widths[place] else 0  # a column that is empty in every row takes no room
        left += style.paint(cell.text, cell.tone) + " " * (taken - len(cell.text))
        start += taken
    room = max(style.width, NARROWEST) - start
    if room < NARROWEST // 2:  # the heads leave nothing: the last cell gets lines of its own
        lines = wrap(
            last.text, max(style.width, NARROWEST) - indent - 4, break_on_hyphens=False, break_long_words=False
        ) or [""]
        shown = [" " * (indent + 4) + style.paint(line, last.tone) for line in lines if line]
        return [left.rstrip(), *shown] if heads else shown
    lines = wrap(last.text, room, break_on_hyphens=False, break_long_words=False) or [""]
    first = (left + style.paint(lines[0], last.tone)).rstrip() if lines[0] else left.rstrip()
    return [first, *(" " * start + style.paint(line, last.tone) for line in lines[1:])]
