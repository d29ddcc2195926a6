"""Which files of a project are its own, and what is its own in the others."""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from fnmatch import fnmatch
from typing import Final

WRITTEN_ONCE: Final = (
    "seed.py",
    "src/*/definitions.py",
    "src/*/handlers.py",
    "src/*/settings.py",
    "tests/*",
)
"""An example until somebody writes over it, and no update touches that."""
_YOURS: Final = (*WRITTEN_ONCE, "README.md", "helm/values.yaml")
"""Edited ever after: that these differ is as it should be."""
_VERSION: Final = r"^(?:version|appVersion)\b.*$"
_WITHIN: Final = {
    "pyproject.toml": (_VERSION, r"^ +# Yours, below this line\.\n(?:.*\n)*?\]$"),
    "helm/Chart.yaml": (_VERSION,),
    ".env.example": (r"^# Yours, below this line\.\n(?:.*\n)*",),
    "src/*/container.py": (r"\A(?:.*\n)*?(?=^ +# The template's lines)",),
}
"""What is the project's own in a file of the template, beside what it added below a line "Yours"."""


def is_written_once(name: str) -> bool:
    """Tell whether a file is an example that its owner writes over, by its name in the project."""
    return any(fnmatch(name, pattern) for pattern in WRITTEN_ONCE)


def is_yours(name: str) -> bool:
    """Tell whether a file is the project's own, by its name in the project."""
    return any(fnmatch(name, pattern) for pattern in _YOURS)


def with_yours(name: str, rendered: str, here: str) -> str:
    """Return what the template renders, with what is the project's own in the file: what was added below "Yours".

    Versions are the project's own as well, so is what was added to pyproject.toml, wherever, and what container.py says
    above the template's lines.
    """
    merged = rendered
    for pattern in (pattern for file, patterns in _WITHIN.items() if fnmatch(name, file) for pattern in patterns):
        merged = _carry(re.compile(pattern, re.MULTILINE), merged, here)
    ours, theirs = merged.splitlines(keepends=True), here.splitlines(keepends=True)
    result = list[str]()
    for change, begin, end, from_here, to_here in SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes():
        added = change == "insert" and (name == "pyproject.toml" or _is_below_yours(theirs[:from_here]))
        result += theirs[from_here:to_here] if added else ours[begin:end]
    return "".join(result)


def _carry(pattern: re.Pattern[str], rendered: str, here: str) -> str:
    """Replace each match in what is rendered by its counterpart here, where all have one."""
    own = pattern.findall(here)
    if len(own) != len(pattern.findall(rendered)):
        return rendered
    return pattern.sub(lambda _: own.pop(0), rendered)


def _is_below_yours(above: Sequence[str]) -> bool:
    """Tell whether the last of these lines that is not empty is the one from which on all is the project's own."""
    last = next((line for line in reversed(above) if line.strip()), "")
    return last.lstrip().startswith("# Yours, below this line")
