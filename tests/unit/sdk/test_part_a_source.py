"""A worker on a manager without leases, one of whose jobs cannot be read."""

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from jobnik_sdk import (
    Handler,
    JobFailedError,
    JobnikClient,
    JobType,
    NewStage,
    NewTask,
    Producer,
    Snooze,
    StageType,
    TaskContext,
    Worker,
)
from jobnik_sdk.testing.fake.manager import FakeManager
from jobnik_sdk.worker import part_a_source
from jobnik_sdk.worker.part_a_source import PartATaskSource
from pydantic import BaseModel
from structlog.testing import capture_logs
from typing_extensions import override

Disturb = Callable[[httpx2.Response], httpx2.Response]

LIMIT = timedelta(seconds=15)
DELAY = timedelta(milliseconds=10)


class Number(BaseModel):
    """A task's data."""

    value: int


plain = JobType("plain")
numbers = StageType("numbers", task=Number)


class Disturbed(httpx2.AsyncBaseTransport):
    """Replaces the responses to some requests."""

    def __init__(self, manager: FakeManager, path: str, disturb: Disturb) -> None:
        self._manager = manager
        self._path = path
        self._disturb = disturb

    @override
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._manager.transport.handle_async_request(request)
        if request.method == "GET" and request.url.path == self._path:
            await response.aread()
            response = self._disturb(response)
            response.request = request
        return response


def _answering(status: int, **body: Any) -> Disturb:  # noqa: ANN401 arguments of a response
    return lambda _: httpx2.Response(status, **body)


def _without_data(response: httpx2.Response) -> httpx2.Response:
    return httpx2.Response(200, json=response.json() | {"data": None})


@pytest.mark.parametrize(
    ("disturb", "status"),
    [
        (_answering(500, json={"message": "no", "code": "DATABASE_RELATED_ERROR"}), "IN_PROGRESS"),
        (_answering(500, text="no"), "IN_PROGRESS"),
        (_answering(403, text="<html>"), "IN_PROGRESS"),
        (_answering(200, text="<html>"), "IN_PROGRESS"),
        (_answering(200, text='{"id": "0'), "IN_PROGRESS"),
        (_answering(200, json={}), "FAILED"),
        (_without_data, "FAILED"),
    ],
)
async def test_a_job_that_cannot_be_read_delays_no_others(
    disturb: Disturb, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job's tasks wait while the manager fails, and fail if its response is invalid; the worker can be stopped."""
    monkeypatch.setattr(part_a_source, "READ_SECONDS", 0.1)
    manager = FakeManager(part_a_only=True)

    async def handle(_task: Number, _context: TaskContext) -> None:
        pass

    async with JobnikClient("http://manager", transport=manager.transport) as client:
        producer = Producer(client)
        bad, good = [
            await producer.create_job(plain, stages=[NewStage(numbers, [NewTask(Number(value=0), max_attempts=1)])])
            for _ in range(2)
        ]
        (stage,) = bad.stages
        transport = Disturbed(manager, f"/v1/jobs/{bad.id}", disturb)
        async with JobnikClient("http://manager", transport=transport) as disturbed:
            handler = Handler(numbers, handle, concurrency=5)
            worker = Worker(
                disturbed, [handler], poll_initial_delay=DELAY, poll_max_delay=DELAY, drain_timeout=timedelta(seconds=1)
            )
            working = asyncio.create_task(worker.run())
            await producer.wait_for_job(good, plain, timeout=LIMIT)
            if status == "FAILED":
                with pytest.raises(JobFailedError):
                    await producer.wait_for_job(bad, plain, timeout=LIMIT)
            else:
                assert [task["status"] for task in await _tasks(client, stage.id)] == [status]
            worker.stop()
            await asyncio.wait_for(working, LIMIT.total_seconds())
        assert [task["status"] for task in await _tasks(client, stage.id)] == ["FAILED"]


async def test_tasks_that_wait_for_their_job_are_reported_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other worker would get them. Until then, they count as claimed."""
    monkeypatch.setattr(part_a_source, "READ_SECONDS", 0.1)
    manager = FakeManager(part_a_only=True)
    async with JobnikClient("http://manager", transport=manager.transport) as client:
        producer = Producer(client)
        job = await producer.create_job(plain, stages=[NewStage(numbers, [Number(value=n) for n in range(3)])])
        away = Disturbed(manager, f"/v1/jobs/{job.id}", _answering(502))
        async with JobnikClient("http://manager", transport=away) as disturbed:
            source = PartATaskSource(disturbed)
            for _ in range(2):
                assert await source.claim(numbers, 2) == []
            statuses = [task["status"] for task in await _tasks(client, job.stages[0].id)]
            assert sorted(statuses) == ["IN_PROGRESS", "IN_PROGRESS", "PENDING"]
            await source.deregister()
        assert [task["attempts"] for task in await _tasks(client, job.stages[0].id)] == [1, 1, 0]


async def _tasks(client: JobnikClient, stage_id: object) -> list[dict[str, Any]]:
    tasks: list[dict[str, Any]] = (await client.request("GET", f"/v1/stages/{stage_id}/tasks")).json()
    return tasks


class _Down(httpx2.AsyncBaseTransport):
    """Answers reports only from the second try on."""

    def __init__(self, manager: FakeManager) -> None:
        self._manager = manager
        self._refused: set[str] = set()

    @override
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "PUT" and request.url.path not in self._refused:
            self._refused.add(request.url.path)
            return httpx2.Response(503, text="no", request=request)
        return await self._manager.transport.handle_async_request(request)


async def test_a_failure_of_the_manager_is_logged_once_for_all_tasks() -> None:
    """Both for reports that are repeated, and for tasks that cannot be released."""

    async def snooze(_task: Number, _context: TaskContext) -> None:
        raise Snooze(timedelta(seconds=1))

    manager = FakeManager(part_a_only=True)
    producer = Producer(manager.client())
    stage = await producer.create_stage(job := await producer.create_job(plain), numbers)
    tasks = [NewTask(Number(value=value), max_attempts=1) for value in range(50)]
    await producer.create_tasks(stage, numbers, tasks)
    worker = Worker(
        JobnikClient("http://manager", transport=_Down(manager)),
        [Handler(numbers, snooze, concurrency=50)],
        poll_initial_delay=DELAY,
        poll_max_delay=DELAY,
    )
    with capture_logs() as logs:
        async with asyncio.timeout(LIMIT.total_seconds()), asyncio.TaskGroup() as running:
            running.create_task(worker.run())
            with pytest.raises(JobFailedError):
                await producer.wait_for_job(job)
            worker.stop()
    warnings = Counter(line["event"] for line in logs if line["log_level"] == "warning")
    assert warnings["manager cannot take tasks back, reporting attempts as failed"] in {1, 2}  # one a second
    assert warnings["report not delivered, retrying"] in {1, 2}
