"""With part A only, the manager answers the recorded requests as the original manager (0.2.1) did."""

from collections.abc import Iterator
from typing import Any

import httpx2

from tests.support.replay import ORIGINAL, Names, recorded
from tools.manager import ManagerProcess

ABORTED_WITH_THEIR_JOB = {1: "COMPLETED", 2: "ABORTED", 3: "ABORTED"}
"""The stages of the aborted job by their order. The original leaves them PENDING and WAITING, although nothing can
happen to them any more; part A of the protocol aborts them."""

CLAIMS = ("dequeue again", "dequeue third")
"""Two claims after the failure of the older of two tasks. The original puts a failed task behind the others; in part A
of the protocol the oldest task comes first, whatever happened to it."""

Json = Any


async def test_the_recorded_answers_are_the_same(database_url: str) -> None:
    """Status, header and answer of each request are the recorded ones, except where part A of the protocol differs."""
    requests = recorded(ORIGINAL)
    assert len(requests) == 42
    claims = [request for request in requests if request["name"] in CLAIMS]
    for request, answer in zip(claims, [request["answer"] for request in reversed(claims)], strict=True):
        request["answer"] = answer
    theirs, ours = Names(), Names()
    with ManagerProcess("--database-url", database_url, "--part-a-only") as manager:
        async with httpx2.AsyncClient(base_url=manager.url, timeout=15) as http:
            for request in requests:
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
