"""How the demo speaks: titles, sentences with a verdict, one table. Colour only where the caller says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence


class Screen:
    """Lines for a person, through the given function."""

    def __init__(self, write: Callable[[str], None], *, coloured: bool, width: int) -> None:
        self._write = write
        self._coloured = coloured
        self._width = width

    def title(self, text: str) -> None:
        """Begin an act."""
        self._write("\n" + self._paint(text, "1"))

    def say(self, text: str) -> None:
        """Say a sentence that is not judged."""
        self._write(f"  {text}")

    def verdict(self, holds: bool, text: str) -> None:
        """Say a sentence and whether it holds."""
        self._write(f"  {self._paint('ok  ', '32') if holds else self._paint('FAIL', '31')} {text}")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print rows under a head; the last column may be cut at the width."""
        widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
        for row in (head, *rows):
            line = "  " + "  ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=True))
            self._write(line[: self._width].rstrip())

    def end(self, well: bool, text: str, seconds: float) -> None:
        """Say the verdict line."""
        self._write(
            "\n"
            + self._paint(f"{'PASSED' if well else 'FAILED'}: {text} ({seconds:.0f} s)", "32;1" if well else "31;1")
        )

    def _paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._coloured else text
