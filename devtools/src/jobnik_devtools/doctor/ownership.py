"""Decides which files of a project, and which parts of the template's files, belong to the owner."""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from fnmatch import fnmatch
from typing import Final

REWRITTEN: Final = (
    ("seed.py", "src/*/container.py", "src/*/definitions.py", "src/*/handlers.py", "src/*/settings.py", "tests/*"),
    ("README.md",),
    ("AGENTS.md",),
)
"""The groups of files that the owner rewrites: the example, and two documents. `copier update` does not change them.
`make update` replaces a group if all its files are as they were rendered."""
_OWNED: Final = (*(pattern for group in REWRITTEN for pattern in group), "helm/values.yaml")
"""Files that the owner is expected to edit: a difference from the template is not reported."""
_VERSION: Final = r"^(?:version|appVersion)\b.*$"
_OWNED_PARTS: Final = {
    "pyproject.toml": (_VERSION, r"^ +# Yours, below this line\.\n(?:.*\n)*?\]$"),
    "helm/Chart.yaml": (_VERSION,),
    ".env.example": (r"^# Yours, below this line\.\n(?:.*\n)*",),
}
"""The owner's parts in files of the template, in addition to lines that were added below "Yours, below this line"."""


def is_written_once(name: str) -> bool:
    """Return whether the template renders a file, by its path in the project, once, for the owner to rewrite."""
    return any(is_in(name, group) for group in REWRITTEN)


def is_in(name: str, group: Sequence[str]) -> bool:
    """Return whether a file, by its path in the project, is in a group of files."""
    return any(fnmatch(name, pattern) for pattern in group)


def is_owned(name: str) -> bool:
    """Return whether a file, by its path in the project, belongs to the owner."""
    return is_in(name, _OWNED)


def with_own_parts(name: str, rendered: str, current: str) -> str:
    """Return what the template renders for a file, with the owner's parts of its current text.

    The owner's parts are lines that were added below "Yours, below this line", versions, and all additions to
    pyproject.toml.
    """
    merged = rendered
    for pattern in (pattern for file, patterns in _OWNED_PARTS.items() if fnmatch(name, file) for pattern in patterns):
        merged = _keep_matches(re.compile(pattern, re.MULTILINE), merged, current)
    template_lines, lines = merged.splitlines(keepends=True), current.splitlines(keepends=True)
    result = list[str]()
    for change, begin, end, first, last in SequenceMatcher(None, template_lines, lines, autojunk=False).get_opcodes():
        is_own = change == "insert" and (name == "pyproject.toml" or _ends_with_marker(lines[:first]))
        result += lines[first:last] if is_own else template_lines[begin:end]
    return "".join(result)


def _keep_matches(pattern: re.Pattern[str], rendered: str, current: str) -> str:
    """Replace each match in the rendered text by its counterpart in the current text, if all have one."""
    own = pattern.findall(current)
    if len(own) != len(pattern.findall(rendered)):
        return rendered
    return pattern.sub(lambda _: own.pop(0), rendered)


def _ends_with_marker(lines: Sequence[str]) -> bool:
    """Return whether the last line that is not empty is the marker above the owner's lines."""
    last = next((line for line in reversed(lines) if line.strip()), "")
    return last.lstrip().startswith("# Yours, below this line")
