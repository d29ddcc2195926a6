"""The little Markdown that generated pages are made of."""

from collections.abc import Iterable, Sequence

GENERATED = "<!-- Written by `make docs`. Change the code that it is generated from, not this file. -->"


def document(title: str, *parts: str) -> str:
    """A page: its title, then its parts with a blank line between."""
    return "\n\n".join((f"# {title}", GENERATED, *parts)) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, one line per row."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
