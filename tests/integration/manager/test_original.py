"""With part A only, the manager answers the recorded requests as the original manager (0.2.1) did."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2

from tools.manager import ManagerProcess

RECORDING = Path(__file__).parents[2] / "support" / "recordings" / "original_0_2_1.json"
"""Recorded answers of the original manager 0.2.1: 42 requests, from the creation of a job to its deletion."""

ABORTED_WITH_THEIR_JOB = {1: "COMPLETED", 2: "ABORTED", 3: "ABORTED"}
"""The stages of the aborted job by their order. The original leaves them PENDING and WAITING, although nothing can
happen to them any more; part A of the protocol aborts them."""

CLAIMS = ("dequeue again", "dequeue third")
"""Two claims after the failure of the older of two tasks. The original puts a failed task behind the others; in part A
of the protocol the oldest task comes first, whatever happened to it."""

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")

Json = Any


class Names:
    """Replaces the ids in answers by their order of appearance, and times by a word."""

    def __init__(self) -> None:
        self._ids: list[str] = []

    def plain(self, value: Json) -> Json:
        """Return a value without ids and times."""
        text = _TIME.sub("TIME", json.dumps(value, sort_keys=True))
        return json.loads(_UUID.sub(lambda found: f"id {self._number(found[0])}", text))

    def _number(self, identity: str) -> int:
        if identity not in self._ids:
            self._ids.append(identity)
        return self._ids.index(identity)

    def translated(self, path: str, into: "Names") -> str:
        """Return a path with the ids that the other side uses."""
        return _UUID.sub(lambda found: into._ids[self._number(found[0])], path)


async def test_the_recorded_answers_are_the_same(database_url: str) -> None:
    """Status, header and answer of each request are the recorded ones, except where part A of the protocol differs."""
    recorded: list[dict[str, Json]] = json.loads(RECORDING.read_text(encoding="utf-8"))
    assert len(recorded) == 42
    claims = [request for request in recorded if request["name"] in CLAIMS]
    for request, answer in zip(claims, [request["answer"] for request in reversed(claims)], strict=True):
        request["answer"] = answer
    theirs, ours = Names(), Names()
    with ManagerProcess("--database-url", database_url, "--part-a-only") as manager:
        async with httpx2.AsyncClient(base_url=manager.url, timeout=15) as http:
            for request in recorded:
                path = theirs.translated(request["path"], ours)
                body = {} if request["body"] is None else {"json": request["body"]}
                response = await http.request(request["method"], path, **body)
                given: Json = response.json() if response.content else None
                if request["name"] == "aborted job with stages":
                    assert {stage["order"]: stage["status"] for stage in given["stages"]} == ABORTED_WITH_THEIR_JOB
                    for stage, wanted in zip(given["stages"], request["answer"]["stages"], strict=True):
                        stage["status"] = wanted["status"]
                assert (response.status_code, response.headers.get("Reason"), ours.plain(given)) == (
                    request["status"],
                    request["reason_header"],
                    theirs.plain(request["answer"]),
                ), request["name"]
                assert list(_times(given)) == sorted(_times(given)), request["name"]


def _times(value: Json) -> Iterator[str]:
    """Yield the times of an entity in their only possible order."""
    if isinstance(value, dict):
        yield from (value[name] for name in ("creationTime", "startTime", "endTime") if name in value)  # pyright: ignore[reportUnknownVariableType]
