"""A manager with part A alone, at the other end of a worker's client, that does as a test says."""

from collections import deque
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx2
from jobnik_sdk import JobnikClient, Worker

Answer = dict[str, Any] | httpx2.Response | Exception

AROUND: dict[str, dict[str, Any]] = {
    "stages": {"id": str(uuid4()), "jobId": str(uuid4()), "type": "a", "order": 1, "data": {}, "userMetadata": {}},
    "jobs": {"id": str(uuid4()), "name": "gallery", "priority": "HIGH", "data": {"a": 1}, "userMetadata": {}},
}
"""The stage and the job of every task."""


class Script:
    """Hands out `claims` in turn, then nothing; answers reports with `reports` in turn, then with success.

    A task that is read is `task`.
    """

    def __init__(self) -> None:
        self.claims: deque[Answer] = deque()
        self.reports: deque[Answer] = deque()
        self.said: list[tuple[str, str]] = []
        self.polls = 0
        self.task: dict[str, Any] = {}
        self.when_empty: Callable[[], None] = lambda: None
        self.before_claim: Callable[[], Any] = lambda: None
        self.client = JobnikClient("http://manager", transport=httpx2.MockTransport(self._answer))

    async def work(self, worker: Worker) -> None:
        """Run a worker until the claims are used up."""
        self.when_empty = worker.stop
        await worker.run()

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        kind, *rest = request.url.path.split("/")[2:]
        if request.method == "PATCH":
            return await self._hand_out()
        if kind == "capabilities":
            return httpx2.Response(404, json={"message": "Not Found", "code": "NOT_FOUND"})
        if kind in AROUND:
            return httpx2.Response(200, json=AROUND[kind])
        if self.reports:
            return _respond(self.reports.popleft())
        if request.method == "PUT":
            self.said.append((rest[0], request.content.decode()))
        return httpx2.Response(200, json=self.task)

    async def _hand_out(self) -> httpx2.Response:
        self.polls += 1
        pending = self.before_claim()
        if pending is not None:
            await pending
        if self.claims:
            return _respond(self.claims.popleft())
        self.when_empty()
        return httpx2.Response(404, json={"message": "None.", "code": "TASK_NOT_FOUND"})


def _respond(answer: Answer) -> httpx2.Response:
    if isinstance(answer, Exception):
        raise answer
    return answer if isinstance(answer, httpx2.Response) else httpx2.Response(200, json=answer)
