"""A manager with only part A of the protocol, at the other end of a worker's client, that follows a script."""

from collections import deque
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx2
from jobnik_sdk import JobnikClient, StageType, Worker
from pydantic import BaseModel

Answer = dict[str, Any] | httpx2.Response | Exception

STAGE_AND_JOB: dict[str, dict[str, Any]] = {
    "stages": {"id": str(uuid4()), "jobId": str(uuid4()), "type": "a", "order": 1, "data": {}, "userMetadata": {}},
    "jobs": {"id": str(uuid4()), "name": "gallery", "priority": "HIGH", "data": {"a": 1}, "userMetadata": {}},
}
"""The stage and the job of every task."""


class Word(BaseModel):
    """A task's data, and its result."""

    text: str = ""


words = StageType("words", task=Word, result=Word)


class ScriptedManager:
    """Answers claims and reports from lists.

    Attributes:
        claims: The answers to claims, in this order; when they are used up, the queue is empty.
        answers_to_reports: The answers to reports and to requests for the task; when they are used up, success.
        task: The task that is read before a report is repeated.
        reports: The accepted reports, as task id and body.
        claim_count: How many claims have arrived.
        on_empty: Called when a claim finds the queue empty.
        before_claim: Called before a claim is answered; if it returns an awaitable, that is awaited.
    """

    def __init__(self) -> None:
        self.claims: deque[Answer] = deque()
        self.answers_to_reports: deque[Answer] = deque()
        self.task: dict[str, Any] = {}
        self.reports: list[tuple[str, str]] = []
        self.claim_count = 0
        self.on_empty: Callable[[], None] = lambda: None
        self.before_claim: Callable[[], Any] = lambda: None
        self.client = JobnikClient("http://manager", transport=httpx2.MockTransport(self._answer))

    async def run_until_empty(self, worker: Worker) -> None:
        """Run a worker until the claims are used up."""
        self.on_empty = worker.stop
        await worker.run()

    @property
    def reported(self) -> list[str]:
        """The bodies of the accepted reports."""
        return [body for _, body in self.reports]

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        kind, *rest = request.url.path.split("/")[2:]
        if request.method == "PATCH":
            return await self._answer_claim()
        if kind == "capabilities":
            return httpx2.Response(404, json={"message": "Not Found", "code": "NOT_FOUND"})
        if kind in STAGE_AND_JOB:
            return httpx2.Response(200, json=STAGE_AND_JOB[kind])
        if self.answers_to_reports:
            return _response(self.answers_to_reports.popleft())
        if request.method == "PUT":
            self.reports.append((rest[0], request.content.decode()))
        return httpx2.Response(200, json=self.task)

    async def _answer_claim(self) -> httpx2.Response:
        self.claim_count += 1
        pending = self.before_claim()
        if pending is not None:
            await pending
        if self.claims:
            return _response(self.claims.popleft())
        self.on_empty()
        return httpx2.Response(404, json={"message": "None.", "code": "TASK_NOT_FOUND"})


def _response(answer: Answer) -> httpx2.Response:
    if isinstance(answer, Exception):
        raise answer
    return answer if isinstance(answer, httpx2.Response) else httpx2.Response(200, json=answer)
