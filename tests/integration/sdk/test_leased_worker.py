"""What a worker does where the manager lends its tasks."""

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest
from jobnik_sdk import (
    DoNotRetry,
    Handler,
    HandlerStyle,
    JobnikClient,
    JobType,
    Priority,
    Producer,
    RetryLater,
    Snooze,
    StageType,
    TaskContext,
    Worker,
)
from pydantic import BaseModel

LEASE = timedelta(seconds=1.5)
"""The shortest that leaves time for a heartbeat on a busy machine."""


class Number(BaseModel):
    """A task's data, a stage's data, and a result."""

    value: int


class Site:
    """A job with one stage of numbers, and what the manager tells of them."""

    def __init__(self, client: JobnikClient, name: str) -> None:
        self.client = client
        self.producer = Producer(client)
        self.stage_type = StageType(name, task=Number, result=Number, data=Number)
        self.job: Any = None
        self.stage: Any = None

    async def fill(self, *values: int) -> None:
        """Create a task for each value."""
        job_type = JobType("numbers", data=Number)
        self.job = await self.producer.create_job(job_type, Number(value=7), priority=Priority.HIGH)
        self.stage = await self.producer.create_stage(self.job, self.stage_type, Number(value=8))
        await self.producer.create_tasks(self.stage, self.stage_type, [Number(value=value) for value in values])

    async def ask(self, path: str) -> Any:  # noqa: ANN401 any JSON
        """What the manager answers."""
        return (await self.client.request("GET", path)).json()

    async def tasks(self) -> dict[int, Any]:
        """The tasks, by their values."""
        return {task["data"]["value"]: task for task in await self.ask(f"/v1/stages/{self.stage.id}/tasks")}

    async def attempts(self, value: int) -> list[Any]:
        """The attempts at a task."""
        return await self.ask(f"/v1/tasks/{(await self.tasks())[value]['id']}/attempts")

    def worker(self, function: Any, concurrency: int = 1, **options: Any) -> Worker:  # noqa: ANN401 passed on
        """A worker with one handler."""
        handler = Handler(self.stage_type, function, concurrency=concurrency)
        return Worker(self.client, [handler], lease=LEASE, **options)


@pytest.fixture
def site(client: JobnikClient, own_name: str) -> Site:
    """A place to work at."""
    return Site(client, own_name)


async def test_what_a_handler_gives_and_knows(site: Site) -> None:
    """It knows its job and stage; its result is kept, its error with type, message and stack; it says how to go on."""
    seen: list[Any] = []

    async def handler(task: Number, context: TaskContext[Any, Number]) -> Number:
        seen.append((context.job.name, context.job.priority, context.job.data, context.stage.data.value))
        if context.attempt > 1:
            worker.stop()
        match task.value:
            case 1:
                raise RetryLater(timedelta(hours=1)) from ValueError("not yet")
            case 2:
                raise Snooze(timedelta(hours=1))
            case 3 if context.attempt == 1:
                raise ValueError("broken")
            case _:
                return Number(value=task.value * 10)

    await site.fill(1, 2, 3)
    worker = site.worker(handler)
    await worker.run()
    tasks = await site.tasks()
    assert {value: (task["status"], task["attempts"], task.get("result")) for value, task in tasks.items()} == {
        1: ("RETRIED", 1, None),
        2: ("PENDING", 0, None),
        3: ("COMPLETED", 1, {"value": 30}),
    }
    first = (await site.attempts(3))[0]
    assert (first["error"]["type"], first["error"]["message"], first["workerId"]) == ("ValueError", "broken", worker.id)
    assert 'raise ValueError("broken")' in first["error"]["stack"]
    assert (await site.attempts(1))[0]["error"]["type"] == "ValueError"
    assert seen[0] == ("numbers", "HIGH", {"value": 7}, 8)


async def test_what_must_not_be_tried_again_fails_for_good(site: Site) -> None:
    """DoNotRetry ends the task whatever attempts it has left."""

    async def handler(_task: Number, _context: TaskContext[Any, Any]) -> Number:
        worker.stop()
        raise DoNotRetry("never")

    await site.fill(1)
    worker = site.worker(handler)
    await worker.run()
    assert (await site.tasks())[1]["status"] == "FAILED"


async def test_a_result_that_the_manager_does_not_take_fails_the_attempt(client: JobnikClient, own_name: str) -> None:
    """It is said once, with the reason, and the others of its batch are not taken along."""

    class Text(BaseModel):
        text: str

    stage_type = StageType(own_name, task=Number, result=Text)
    producer = Producer(client)
    stage = await producer.create_stage(await producer.create_job(JobType("texts")), stage_type)
    await producer.create_tasks(stage, stage_type, [Number(value=2_000_000), Number(value=1)])
    both = asyncio.Event()

    async def handler(task: Number, _context: TaskContext) -> Text:
        if task.value == 1:
            both.set()
            worker.stop()
        await both.wait()
        return Text(text="x" * task.value)

    worker = Worker(client, [Handler(stage_type, handler, concurrency=2)], lease=LEASE)
    await worker.run()
    answer = await client.request("GET", f"/v1/stages/{stage.id}/tasks")
    large, small = answer.json()
    assert (large["status"], large["error"]["type"], small["status"]) == ("FAILED", "PayloadTooLargeError", "COMPLETED")


async def test_leases_outlive_a_long_task_and_progress_is_told(site: Site) -> None:
    """A heartbeat renews the lease while the handler works, and takes its progress and its checkpoint along."""
    told = asyncio.Event()
    left: list[Any] = []

    async def handler(_task: Number, context: TaskContext[Any, Any]) -> Number:
        left.append(context.checkpoint)
        if context.attempt == 1:
            context.progress(0.25, "a quarter")
            context.save_checkpoint({"page": 1})
            await told.wait()
            context.save_checkpoint({"page": 2})
            raise ValueError("again")
        worker.stop()
        return Number(value=1)

    await site.fill(1)
    worker = site.worker(handler)
    working = asyncio.create_task(worker.run())
    started = time.monotonic()
    while (task := (await site.tasks())[1]).get("progress", {}).get("fraction") != 0.25:
        assert time.monotonic() < started + 15
        await asyncio.sleep(0.05)
    assert (task["progress"]["message"], task["checkpoint"]) == ("a quarter", {"page": 1})
    await asyncio.sleep(max(started + 2 * LEASE.total_seconds() - time.monotonic(), 0))
    told.set()
    await working
    assert left == [None, {"page": 2}]
    assert [attempt["outcome"] for attempt in await site.attempts(1)] == ["FAILED", "COMPLETED"]


async def test_an_abort_reaches_the_handler(site: Site) -> None:
    """The handler of a task whose job is aborted is cancelled, and knows why."""
    begun = asyncio.Event()
    reasons: list[str | None] = []

    async def handler(_task: Number, context: TaskContext[Any, Any]) -> Number:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            reasons.append(context.cancellation.reason)
            worker.stop()
        return Number(value=1)

    await site.fill(1)
    worker = site.worker(handler)
    working = asyncio.create_task(worker.run())
    await begun.wait()
    await site.client.request("PUT", f"/v1/jobs/{site.job.id}/status", json={"status": "ABORTED"})
    await working
    assert reasons == ["job aborted"]
    assert (await site.tasks())[1]["status"] == "ABORTED"


async def test_a_drain_hands_back_what_takes_too_long(site: Site) -> None:
    """What ends in time is completed; what does not is cancelled and handed back, and no attempt is burnt."""
    begun = asyncio.Semaphore(0)

    async def handler(task: Number, _context: TaskContext[Any, Any]) -> Number:
        begun.release()
        await asyncio.sleep(0.2 if task.value == 1 else 60)
        return task

    await site.fill(1, 2, 3)
    worker = site.worker(handler, concurrency=3, drain_timeout=timedelta(seconds=2))
    working = asyncio.create_task(worker.run())
    for _ in range(3):
        await begun.acquire()
    worker.stop()
    await working
    tasks = await site.tasks()
    assert {value: (task["status"], task["attempts"]) for value, task in tasks.items()} == {
        1: ("COMPLETED", 0),
        2: ("PENDING", 0),
        3: ("PENDING", 0),
    }
    assert [attempt["outcome"] for attempt in await site.attempts(2)] == ["RELEASED"]


async def test_a_stopped_worker_leaves_no_claim_behind(site: Site) -> None:
    """However a stop and a waiting claim meet, each task is completed, or waits with no attempt burnt."""
    await site.fill(*range(30))
    count = 0

    async def handler(task: Number, _context: TaskContext[Any, Any]) -> Number:
        nonlocal count
        count += 1
        return task

    for turn in range(10):
        worker = site.worker(handler, concurrency=2)
        asyncio.get_running_loop().call_later(0.005 * turn, worker.stop)
        await worker.run()
    tasks = (await site.tasks()).values()
    assert {task["status"] for task in tasks} <= {"PENDING", "COMPLETED"}
    assert all(task["attempts"] == 0 for task in tasks)
    assert sum(task["status"] == "COMPLETED" for task in tasks) == count


async def test_the_manager_orders_a_drain(site: Site) -> None:
    """A worker that is told to drain finishes and ends by itself."""
    await site.fill(1)
    begun = asyncio.Event()

    async def handler(task: Number, _context: TaskContext[Any, Any]) -> Number:
        begun.set()
        return task

    worker = site.worker(handler)
    working = asyncio.create_task(worker.run())
    await begun.wait()
    await site.client.request("PUT", f"/v1/workers/{worker.id}", json={"drain": True})
    await working
    assert (await site.tasks())[1]["status"] == "COMPLETED"
    assert worker.id not in {told["id"] for told in await site.ask("/v1/workers")}


async def test_a_worker_has_handlers_for_several_stage_types(client: JobnikClient, own_name: str) -> None:
    """Each with slots and a style of its own, under one heartbeat."""
    producer = Producer(client)
    types = [StageType(f"{own_name}-{number}", task=Number) for number in (1, 2)]
    job = await producer.create_job(JobType("both"))
    done: list[int] = []

    async def first(task: Number, _context: TaskContext) -> None:
        done.append(task.value)

    def second(task: Number, _context: TaskContext) -> None:
        done.append(task.value)
        worker.stop()

    for number, stage_type in enumerate(types):
        stage = await producer.create_stage(job, stage_type)
        await producer.create_tasks(stage, stage_type, [Number(value=number)])
    handlers = [Handler(types[0], first), Handler(types[1], second, style=HandlerStyle.THREAD)]
    worker = Worker(client, handlers, lease=LEASE)
    await worker.run()
    assert done == [0, 1]
