"""The fake manager: its clock, its waiting claims and its typed views.

Tests of the protocol are in tests/conformance and tests/model.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from jobnik_sdk import JobnikClient, JobType, NewTask, Producer, StageType, TaskStatus
from jobnik_sdk.testing import FakeManager
from pydantic import BaseModel

MINUTE = timedelta(minutes=1)


class Number(BaseModel):
    """A task's data and its result."""

    value: int


numbers = StageType("numbers", task=Number, result=Number)
plain = JobType("plain")


@pytest.fixture
def manager() -> FakeManager:
    """A new manager."""
    return FakeManager()


@pytest.fixture
async def client(manager: FakeManager) -> AsyncIterator[JobnikClient]:
    """A client of the manager."""
    async with manager.client() as client:
        yield client


async def _fill(client: JobnikClient, *tasks: dict[str, Any]) -> None:
    producer = Producer(client)
    stage = await producer.create_stage(await producer.create_job(plain), numbers)
    bodies = [{"data": {"value": place}} | task for place, task in enumerate(tasks)]
    await client.request("POST", f"/v1/stages/{stage.id}/tasks", json=bodies)


async def _claim(client: JobnikClient, **fields: object) -> list[Any]:
    claim = {"workerId": "me", "limit": 10} | fields
    return (await client.request("POST", "/v1/stages/numbers/tasks/claim", json=claim)).json()["tasks"]


async def _until_one_waits(manager: FakeManager) -> None:
    while manager.waiting_claims != 1:  # noqa: ASYNC110 another thread makes it true
        await asyncio.sleep(0)


async def test_lease_expires_by_the_clock(manager: FakeManager, client: JobnikClient) -> None:
    """A test need not sleep to see the tasks of a dead worker retried."""
    await _fill(client, {}, {"timeoutSeconds": 5})
    await _claim(client, leaseSeconds=30)
    assert [task.status for task in manager.tasks(numbers)] == [TaskStatus.IN_PROGRESS] * 2
    before = manager.now
    manager.advance(MINUTE)
    assert manager.now >= before + MINUTE
    tasks = manager.tasks(numbers)
    assert [(task.status, task.attempts) for task in tasks] == [(TaskStatus.RETRIED, 1)] * 2
    assert [task.error.type for task in tasks if task.error] == ["LeaseExpired", "TimedOut"]


async def test_delayed_task_is_due_by_the_clock(manager: FakeManager, client: JobnikClient) -> None:
    """A delay or a retry policy does not slow a test down."""
    await _fill(client, {"delaySeconds": 50}, {"retry": {"delaySeconds": 10}})
    for place, found in enumerate([[1], [1], [0, 1]]):
        tasks = sorted(await _claim(client), key=lambda task: task["data"]["value"])
        assert [task["data"]["value"] for task in tasks] == found
        reports = [{"taskId": task["id"], "leaseId": task["leaseId"], "outcome": "FAILED"} for task in tasks]
        await client.request("POST", "/v1/tasks/settle", json={"workerId": "me", "results": reports})
        assert await _claim(client) == []
        manager.advance(timedelta(seconds=[10, 40, 0][place]))


async def test_waiting_claim_is_answered(manager: FakeManager, client: JobnikClient) -> None:
    """By new tasks, by the clock, from another thread, or at the end of its wait."""
    waiting = asyncio.create_task(_claim(client, waitSeconds=30, leaseSeconds=3600))
    await _fill(client, {}, {"delaySeconds": 3600})
    assert [task["data"]["value"] for task in await waiting] == [0]
    waiting = asyncio.create_task(_claim(client, waitSeconds=30))
    await _until_one_waits(manager)
    await asyncio.to_thread(manager.advance, 10 * MINUTE)
    assert await waiting == []
    waiting = asyncio.create_task(_claim(client, waitSeconds=30, workerId="another"))
    await _until_one_waits(manager)
    await asyncio.to_thread(manager.advance, 60 * MINUTE)
    assert [task["attempts"] for task in await waiting] == [1, 0]
    assert await _claim(client, waitSeconds=0.01) == []


async def test_blocking_connection_waits(manager: FakeManager, client: JobnikClient) -> None:
    """The transport serves threads without an event loop."""
    blocking = client.blocking(MINUTE)
    claim = {"workerId": "me", "waitSeconds": 30}
    path = "/v1/stages/numbers/tasks/claim"
    waiting = asyncio.create_task(asyncio.to_thread(blocking.post, path, json=claim))
    await _until_one_waits(manager)
    await _fill(client, {})
    assert len((await waiting).json()["tasks"]) == 1
    blocking.close()
    assert manager.tasks(numbers)[0].status is TaskStatus.IN_PROGRESS


async def test_cancelled_claim_takes_no_task(manager: FakeManager, client: JobnikClient) -> None:
    """A worker that stops while it waits does not get a task."""
    waiting = asyncio.create_task(_claim(client, waitSeconds=30))
    await _until_one_waits(manager)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert manager.waiting_claims == 0
    await _fill(client, {})
    assert manager.tasks(numbers)[0].status is TaskStatus.PENDING


async def test_jobs_and_tasks_are_typed(manager: FakeManager, client: JobnikClient) -> None:
    """They are models of their types, with the results of their attempts."""
    producer = Producer(client)
    job = await producer.create_job(plain)
    stage = await producer.create_stage(job, numbers)
    await producer.create_tasks(stage, numbers, [NewTask(Number(value=4), max_attempts=1)])
    (task,) = await _claim(client)
    report = {"taskId": task["id"], "leaseId": task["leaseId"], "outcome": "COMPLETED", "result": {"value": 16}}
    await client.request("POST", "/v1/tasks/settle", json={"workerId": "me", "results": [report]})
    (found,) = manager.tasks(numbers)
    assert (found.data, found.result, found.error, found.checkpoint) == (Number(value=4), Number(value=16), None, None)
    assert [(one.id, one.percentage) for one in manager.jobs(plain)] == [(job.id, 100)]
    assert manager.jobs(JobType("other")) == manager.tasks(StageType("other", task=Number)) == []


async def test_whole_job_is_one_request(manager: FakeManager, client: JobnikClient) -> None:
    """A job is created with its stages and tasks."""
    stages: list[dict[str, Any]] = [
        {"type": "numbers", "data": {}, "tasks": [{"data": {"value": 1}}]},
        {"type": "last", "data": {}},
    ]
    body: dict[str, Any] = {"name": "plain", "data": {}, "stages": stages}
    job = (await client.request("POST", "/v1/jobs", json=body)).json()
    assert [(stage["type"], stage["status"], "tasks" in stage) for stage in job["stages"]] == [
        ("numbers", "PENDING", False),
        ("last", "CREATED", False),
    ]
    assert len(manager.tasks(numbers)) == 1


async def test_unique_key_prevents_a_second_job(manager: FakeManager, client: JobnikClient) -> None:
    """While the first job runs, or for a time that the clock measures."""

    async def create(**fields: object) -> tuple[int, str]:
        answer = await client.request("POST", "/v1/jobs", json={"name": "plain", "data": dict[str, str](), **fields})
        return answer.status_code, answer.json()["id"]

    _, first = await create(uniqueKey="a")
    assert await create(uniqueKey="a") == (200, first)
    assert (await create(uniqueKey="b"))[0] == 201
    await client.request("PUT", f"/v1/jobs/{first}/status", json={"status": "ABORTED"})
    assert await create(uniqueKey="a", uniqueFor=60) == (200, first)
    assert (await create(uniqueKey="a"))[1] != first
    manager.advance(MINUTE)
    assert (await create(uniqueKey="a", uniqueFor=60))[0] == 201


async def test_minimal_answer(manager: FakeManager, client: JobnikClient) -> None:
    """The answer to new tasks has only their number."""
    producer = Producer(client)
    stage = await producer.create_stage(await producer.create_job(plain), numbers)
    async with httpx2.AsyncClient(transport=manager.transport, base_url=client.base_url) as http:
        bodies = [{"data": {"value": 1}}]
        answer = await http.post(f"/v1/stages/{stage.id}/tasks", json=bodies, headers={"Prefer": "return=minimal"})
    given = (answer.status_code, answer.json(), answer.headers["Preference-Applied"])
    assert given == (201, {"created": 1}, "return=minimal")


async def test_ten_thousand_tasks(client: JobnikClient) -> None:
    """They are created, and 500 of them claimed, within the time limit of a test."""
    await _fill(client, *(dict[str, Any]() for _ in range(10_000)))
    assert len(await _claim(client, limit=500)) == 500
