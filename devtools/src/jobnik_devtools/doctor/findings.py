"""What a check finds, and how it is shown."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import zip_longest
from textwrap import wrap
from typing import Final

_WIDEST: Final = 110
_MARGIN: Final = " " * 15
"""As wide as a sign and the name of a check."""


class Level(Enum):
    """How much a finding matters: its sign, and the colour of that on a terminal."""

    WELL = ("✓", 32)
    NOTE = ("!", 33)
    """Good to know, and perhaps meant so."""
    UNKNOWN = ("?", 33)
    """The check could not be made."""
    WRONG = ("✗", 31)


@dataclass(frozen=True)
class Finding:
    """One thing that was found, and what to do about it; where all is well, nothing."""

    level: Level
    text: str
    remedy: str = ""


class CannotCheckError(Exception):
    """Something cannot be looked at: why, and what to do about it."""

    def __init__(self, why: object, remedy: str = "") -> None:
        super().__init__(why)
        self.remedy = remedy


class RefusedError(Exception):
    """Something is not done, and nothing was changed: the message says why, and what to do first."""


def well(text: str) -> Finding:
    """Find that something is as it should be."""
    return Finding(Level.WELL, text)


def note(text: str, remedy: str) -> Finding:
    """Find what may be meant so."""
    return Finding(Level.NOTE, text, remedy)


def unknown(error: CannotCheckError) -> Finding:
    """Find nothing out."""
    return Finding(Level.UNKNOWN, f"not checked: {error}", error.remedy)


def wrong(text: str, remedy: str) -> Finding:
    """Find what has to be put right."""
    return Finding(Level.WRONG, text, remedy)


def shown(name: str, findings: Sequence[Finding], *, terminal: bool) -> Iterator[str]:
    """Yield the lines of a check: on a terminal coloured, and broken where that is full.

    Its name stands beside the first finding, and a remedy for several in a row after the last of them.
    """
    width = min(shutil.get_terminal_size().columns, _WIDEST) - len(_MARGIN) if terminal else None
    for finding, following in zip_longest(findings, findings[1:]):
        sign, colour = finding.level.value
        painted = f"\33[{colour}m{sign}\33[0m" if terminal else sign
        title = name if finding is findings[0] else ""
        yield from _paragraph(f"  {painted} {title:<10} ", finding.text, width)
        if finding.remedy and (following is None or following.remedy != finding.remedy):
            yield from _paragraph(f"{_MARGIN}→ ", finding.remedy, width and width - 2)


def _paragraph(start: str, text: str, width: int | None) -> Iterator[str]:
    # Paths and commands stay whole.
    lines = [text] if width is None else wrap(text, width, break_long_words=False, break_on_hyphens=False)
    yield start + lines[0]
    indent = _MARGIN + "  " * start.endswith("→ ")
    yield from (indent + line for line in lines[1:])


def summary(findings: Sequence[Finding]) -> str:
    """Return the last line: how many of each there are that matter."""
    count = {level: sum(finding.level is level for finding in findings) for level in Level}
    said = [
        f"{number} {words}"
        for number, words in (
            (count[Level.WRONG], "wrong"),
            (count[Level.NOTE], "to know"),
            (count[Level.UNKNOWN], "not checked"),
        )
        if number
    ]
    return f"{', '.join(said)}." if said else "All is well."
