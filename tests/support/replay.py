"""Recorded requests and answers, with the ids and times of another manager."""

import json
import re
from pathlib import Path
from typing import Any, Final

Json = Any

ORIGINAL: Final = Path(__file__).parent / "recordings" / "original_0_2_1.json"
"""Recorded answers of the original manager 0.2.1: 42 requests, from the creation of a job to its deletion."""

PAGED: Final = ORIGINAL.with_name("paged_successor.json")
"""The answers of its successor to the same requests; its lists have numbered pages."""

UUID_PATTERN: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def recorded(path: Path) -> list[dict[str, Json]]:
    """Return the recorded requests, with their answers."""
    return json.loads(path.read_text(encoding="utf-8"))


class Names:
    """Replaces the ids in answers by their order of appearance, and times by a word."""

    def __init__(self) -> None:
        self._ids: list[str] = []

    def plain(self, value: Json) -> Json:
        """Return a value without ids and times."""
        text = _TIME.sub("TIME", json.dumps(value, sort_keys=True))
        return json.loads(UUID_PATTERN.sub(lambda found: f"id {self._number(found[0])}", text))

    def translated(self, path: str, into: "Names") -> str:
        """Return a path with the ids that the other side uses."""
        return UUID_PATTERN.sub(lambda found: into._ids[self._number(found[0])], path)

    def _number(self, identity: str) -> int:
        if identity not in self._ids:
            self._ids.append(identity)
        return self._ids.index(identity)
