"""The findings of a check, and how they are printed."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import zip_longest
from textwrap import wrap
from typing import Final

_MAX_WIDTH: Final = 110
_MARGIN: Final = " " * 15
"""An indent as wide as a sign and the name of a check."""


class Level(Enum):
    """How serious a finding is: its sign, and the ANSI code of the sign's colour on a terminal."""

    OK = ("✓", 32)
    NOTE = ("!", 33)
    """Worth knowing, and possibly intended."""
    NOT_CHECKED = ("?", 33)
    """The check could not be completed."""
    PROBLEM = ("✗", 31)


@dataclass(frozen=True)
class Finding:
    """The result of a check, and the remedy if the result is a problem."""

    level: Level
    text: str
    remedy: str = ""


class CannotCheckError(Exception):
    """A check cannot be completed; the message says why."""

    def __init__(self, why: object, remedy: str = "") -> None:
        super().__init__(why)
        self.remedy = remedy


class RefusedError(Exception):
    """An action was refused, and nothing was changed; the message says why, and what to do first."""


def ok(text: str) -> Finding:
    """Return a finding without a problem."""
    return Finding(Level.OK, text)


def note(text: str, remedy: str) -> Finding:
    """Return a finding that may be intended."""
    return Finding(Level.NOTE, text, remedy)


def not_checked(error: CannotCheckError) -> Finding:
    """Return the finding for a check that cannot be completed."""
    return Finding(Level.NOT_CHECKED, f"not checked: {error}", error.remedy)


def problem(text: str, remedy: str) -> Finding:
    """Return a finding that must be fixed."""
    return Finding(Level.PROBLEM, text, remedy)


def format_check(name: str, findings: Sequence[Finding], *, terminal: bool) -> Iterator[str]:
    """Yield the lines of a check; on a terminal, they are coloured and wrapped to its width.

    The name of the check is printed next to its first finding. If several findings in a row have the same remedy, the
    remedy is printed once, after the last of them.
    """
    width = min(shutil.get_terminal_size().columns, _MAX_WIDTH) - len(_MARGIN) if terminal else None
    for finding, following in zip_longest(findings, findings[1:]):
        sign, colour = finding.level.value
        coloured = f"\33[{colour}m{sign}\33[0m" if terminal else sign
        title = name if finding is findings[0] else ""
        yield from _paragraph(f"  {coloured} {title:<10} ", finding.text, width)
        if finding.remedy and (following is None or following.remedy != finding.remedy):
            yield from _paragraph(f"{_MARGIN}→ ", finding.remedy, width and width - 2)


def _paragraph(start: str, text: str, width: int | None) -> Iterator[str]:
    # Do not break paths and commands.
    lines = [text] if width is None else wrap(text, width, break_long_words=False, break_on_hyphens=False)
    yield start + lines[0]
    indent = _MARGIN + "  " * start.endswith("→ ")
    yield from (indent + line for line in lines[1:])


def summary(findings: Sequence[Finding]) -> str:
    """Return the last line of the output: the numbers of problems, notes and incomplete checks."""
    count = {level: sum(finding.level is level for finding in findings) for level in Level}
    problems, notes, unchecked = count[Level.PROBLEM], count[Level.NOTE], count[Level.NOT_CHECKED]
    parts = [
        text
        for number, text in (
            (problems, "1 problem" if problems == 1 else f"{problems} problems"),
            (notes, "1 note" if notes == 1 else f"{notes} notes"),
            (unchecked, f"{unchecked} not checked"),
        )
        if number
    ]
    if not (problems or notes):
        parts = ["No problems found", *parts]
    return f"{', '.join(parts)}."
