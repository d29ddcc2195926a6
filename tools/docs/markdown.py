"""Markdown for the generated pages."""

from collections.abc import Iterable, Sequence

GENERATED = "<!-- Written by `make docs`. Change the code that it is generated from, not this file. -->"


def document(title: str, *parts: str) -> str:
    """Return a page: the title, then the parts, separated by blank lines."""
    return "\n\n".join((f"# {title}", GENERATED, *parts)) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table with one line per row."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
