"""Fixtures: a scripted manager, prepared responses, retries without pauses, and the JSON of entities."""

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from jobnik_sdk import JobnikClient

from tests.unit.sdk.script import ScriptedManager

NOW = "2026-01-01T00:00:00.000Z"
Answer = httpx2.Response | Exception


class Wire:
    """A transport that returns `answers` one after the other, and records the requests.

    Attributes:
        features: The features of the manager, which are then neither recorded nor part of `answers`.
    """

    def __init__(self) -> None:
        self.features: list[str] | None = None
        self.requests: list[httpx2.Request] = []
        self.answers: deque[Answer] = deque()
        self.client = JobnikClient("http://manager", transport=httpx2.MockTransport(self._answer))

    def will_answer(self, *answers: Answer) -> None:
        """Add responses, or exceptions, for the next requests."""
        self.answers.extend(answers)

    @property
    def sent(self) -> list[str]:
        """The recorded requests, as `METHOD path`."""
        return [f"{request.method} {request.url.path}" for request in self.requests]

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        if self.features is not None and request.url.path == "/v1/capabilities":
            return httpx2.Response(200, json={"features": self.features})
        self.requests.append(request)
        answer = self.answers.popleft()
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    """A client with prepared responses. The test fails if some are left over."""
    wire = Wire()
    yield wire
    await wire.client.aclose()
    assert not wire.answers, "some prepared responses were not requested"


@pytest.fixture
async def manager() -> AsyncIterator[ScriptedManager]:
    """A scripted manager."""
    manager = ScriptedManager()
    yield manager
    await manager.client.aclose()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses before retries in seconds, which take no time; jitter always chooses the longest pause."""
    waited: list[float] = []

    async def note(seconds: float) -> None:
        waited.append(seconds)

    def longest(_low: float, high: float) -> float:
        return high

    monkeypatch.setattr(asyncio, "sleep", note)
    monkeypatch.setattr(random, "uniform", longest)
    return waited


@pytest.fixture
def entity() -> Callable[..., dict[str, Any]]:
    """Return a function that creates the JSON of an entity, with the fields that all entities have."""

    def make(**fields: object) -> dict[str, Any]:
        return {"id": str(uuid4()), "createdAt": NOW, "updatedAt": NOW, "userMetadata": {}, "data": {}, **fields}

    return make


@pytest.fixture
def task_json(entity: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Return a function that creates the JSON of a task in progress."""

    def make(**fields: object) -> dict[str, Any]:
        common = {"stageId": str(uuid4()), "status": "IN_PROGRESS", "attempts": 0, "maxAttempts": 3}
        return entity(**{**common, **fields})

    return make


@pytest.fixture
def refusal() -> Callable[[int, str], httpx2.Response]:
    """Return a function that creates an error response of the protocol."""

    def make(status: int, code: str) -> httpx2.Response:
        return httpx2.Response(status, json={"message": "No.", "code": code})

    return make
