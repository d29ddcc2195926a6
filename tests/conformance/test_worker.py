"""Workers: every task is worked on once, in its order, until its job has ended."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from jobnik_sdk import (
    Handler,
    HandlerStyle,
    JobnikClient,
    JobStatus,
    JobType,
    Priority,
    Producer,
    StageStatus,
    StageType,
    TaskContext,
)
from pydantic import BaseModel

from tests.conformance.site import Number, Site, new_worker

plain = JobType("plain")


async def test_two_workers_finish_a_job_of_two_stages(client: JobnikClient, producer: Producer, own_name: str) -> None:
    """The second stage begins when the first is done, each task is run once, and the job is completed."""
    first = StageType(f"{own_name}-1", task=Number, result=Number)
    second = StageType(f"{own_name}-2", task=Number)
    order: list[str] = []
    job = await producer.create_job(plain)
    stages: list[tuple[StageType[Number, Any], int]] = [(first, 20), (second, 1)]
    for stage_type, tasks in stages:
        stage = await producer.create_stage(job, stage_type)
        await producer.create_tasks(stage, stage_type, [Number(value=n) for n in range(tasks)])

    async def one(task: Number, _context: TaskContext) -> Number:
        order.append(str(task.value))
        return task

    async def two(_task: Number, _context: TaskContext) -> None:
        order.append("end")
        for worker in workers:
            worker.stop()

    workers = (new_worker(client, Handler(first, one, concurrency=4)), new_worker(client, Handler(second, two)))
    await asyncio.gather(*(worker.run() for worker in workers))
    assert sorted(order[:-1], key=int) == [str(n) for n in range(20)]
    assert order[-1] == "end"
    done = await producer.get_job(job, plain)
    assert (done.status, done.percentage) == (JobStatus.COMPLETED, 100)


async def test_threads_share_the_work(site: Site) -> None:
    """Plain functions in threads complete every task once."""
    await site.fill(*range(30))
    done: list[int] = []

    def handler(task: Number, _context: TaskContext[Any, Number]) -> Number:
        done.append(task.value)
        if len(done) == 30:
            worker.stop()
        return task

    worker = new_worker(site.client, site.handler(handler, concurrency=4, style=HandlerStyle.THREAD))
    await worker.run()
    assert sorted(done) == list(range(30))
    assert await site.job_status() == "COMPLETED"


async def test_urgent_jobs_come_first(site: Site) -> None:
    """Then the older tasks, whatever the order in which jobs were created."""
    done: list[int] = []

    async def handler(task: Number, _context: TaskContext[Any, Number]) -> Number:
        done.append(task.value)
        if len(done) == 5:
            worker.stop()
        return task

    await site.fill(5, priority=Priority.VERY_LOW)
    await site.fill(3, 4, priority=Priority.MEDIUM)
    await site.fill(1, 2, priority=Priority.VERY_HIGH)
    worker = site.worker(handler)
    await worker.run()
    assert done == [1, 2, 3, 4, 5]


async def test_a_waiting_worker_takes_what_comes(site: Site) -> None:
    """Tasks that are created while the queue is empty are worked on, without a restart."""
    begun = asyncio.Event()
    done: list[int] = []

    async def handler(task: Number, _context: TaskContext[Any, Number]) -> Number:
        done.append(task.value)
        begun.set()
        return task

    worker = site.worker(handler)
    working = asyncio.create_task(worker.run())
    for value in range(3):
        begun.clear()
        await site.fill(value)
        await begun.wait()
    worker.stop()
    await working
    assert done == [0, 1, 2]


async def test_each_stage_type_has_a_concurrency_of_its_own(client: JobnikClient, own_name: str) -> None:
    """Handlers in one worker, of different styles, fill their slots and no more."""
    producer = Producer(client)
    job = await producer.create_job(plain)
    running, most, done = Counter[str](), Counter[str](), Counter[str]()
    both = asyncio.Event()

    async def several(_task: Number, context: TaskContext[Any, Any]) -> None:
        name = context.stage.type
        running[name] += 1
        most[name] = max(most[name], running[name])
        if running[name] == 3:
            both.set()
        await both.wait()
        running[name] -= 1
        end(name)

    def one(_task: Number, context: TaskContext[Any, Any]) -> None:
        name = context.stage.type
        running[name] += 1
        most[name] = max(most[name], running[name])
        running[name] -= 1
        end(name)

    def end(name: str) -> None:
        done[name] += 1
        if done.total() == 12:
            worker.stop()

    types = [StageType(f"{own_name}-{number}", task=Number) for number in (1, 2)]
    for stage_type in types:
        stage = await producer.create_stage(await producer.create_job(plain), stage_type)
        await producer.create_tasks(stage, stage_type, [Number(value=value) for value in range(6)])
    handlers = (Handler(types[0], several, concurrency=3), Handler(types[1], one, style=HandlerStyle.THREAD))
    worker = new_worker(client, *handlers)
    await worker.run()
    assert most == {types[0].name: 3, types[1].name: 1}
    assert (await producer.get_job(job, plain)).status is JobStatus.PENDING


async def test_a_task_that_always_fails_fails_its_job(site: Site) -> None:
    """As many attempts as it has, then the job has failed; the worker is still there."""
    await site.fill(1, max_attempts=4)
    attempts: list[int] = []

    async def handler(_task: Number, context: TaskContext[Any, Number]) -> Number:
        attempts.append(context.attempt)
        if context.attempt == context.max_attempts:
            worker.stop()
        raise ValueError("never")

    worker = site.worker(handler)
    await worker.run()
    assert attempts == [1, 2, 3, 4]
    assert (await site.statuses(), await site.job_status()) == ({1: ("FAILED", 4)}, "FAILED")


async def test_a_paused_job_waits(site: Site) -> None:
    """Its tasks are not handed out, what is at work may be finished, and it goes on when it is resumed."""
    done: list[int] = []

    async def handler(task: Number, _context: TaskContext[Any, Number]) -> Number:
        done.append(task.value)
        if task.value == 1:
            await site.producer.pause_job(paused)
        if task.value == 9:
            await site.producer.resume_job(paused)
        if len(done) == 4:
            worker.stop()
        return task

    await site.fill(1, 2, 3)
    paused = site.job
    await site.fill(9)
    worker = site.worker(handler)
    await worker.run()
    assert done == [1, 9, 2, 3]


async def test_what_is_at_work_ends_a_paused_job(site: Site) -> None:
    """The last report counts with all that follows from it."""
    await site.fill(1)

    async def handler(task: Number, _context: TaskContext[Any, Number]) -> Number:
        await site.producer.pause_job(site.job)
        worker.stop()
        return task

    worker = site.worker(handler)
    await worker.run()
    assert await site.job_status() == "COMPLETED"


async def test_a_waiting_stage_starts_by_hand(site: Site) -> None:
    """Its tasks are not handed out before, and it cannot start before its turn."""
    order: list[str] = []
    await site.fill(1)
    producer, job, first = site.producer, site.job, site.stage
    last = StageType(f"{site.stage_type.name[:45]}-last", task=Number)
    stage = await producer.create_stage(job, last, waiting=True)
    await producer.create_tasks(stage, last, [Number(value=2)])

    async def handler(task: Number, _context: TaskContext[Any, Number]) -> Number:
        order.append("first")
        return task

    async def at_last(_task: Number, _context: TaskContext) -> None:
        order.append("last")
        worker.stop()

    worker = new_worker(site.client, site.handler(handler), Handler(last, at_last))
    working = asyncio.create_task(worker.run())
    while (await producer.get_stage(first, site.stage_type)).status is not StageStatus.COMPLETED:  # noqa: ASYNC110 others make it so
        await asyncio.sleep(0.01)
    order.append(str((await producer.get_stage(stage, last)).status))
    await producer.start_stage(stage)
    await working
    assert order == ["first", "WAITING", "last"]
    assert await site.job_status() == "COMPLETED"


async def test_a_task_that_cannot_be_read_fails_alone(site: Site, part_b: bool) -> None:  # noqa: FBT001 pytest passes it by name
    """Its attempts fail without the handler, and those beside it are worked on."""

    class Older(BaseModel):
        name: str

    await site.fill(1, 2)
    older = StageType(site.stage_type.name, task=Older)
    stage = await site.producer.create_stage(await site.producer.create_job(plain), older)
    await site.producer.create_tasks(stage, older, [Older(name="a")])
    done: list[int] = []

    async def handler(task: Number, _context: TaskContext[Any, Number]) -> Number:
        done.append(task.value)
        return task

    worker = site.worker(handler, concurrency=3)
    working = asyncio.create_task(worker.run())
    while (await site.producer.get_stage(stage, older)).status is not StageStatus.FAILED:  # noqa: ASYNC110 as above
        await asyncio.sleep(0.01)
    worker.stop()
    await working
    (task,) = await site.ask(f"/v1/stages/{stage.id}/tasks")
    assert (sorted(done), task["status"], task["attempts"]) == ([1, 2], "FAILED", 3)
    if part_b:
        assert (task["error"]["type"], task["error"]["message"]) == (
            "UnreadableTaskError",
            "data.value: Field required",
        )


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_nothing_is_left_in_progress_by_a_stop(concurrency: int, site: Site) -> None:
    """However a stop and a report meet, each task is completed or still waiting."""
    await site.fill(*range(400))  # more than are done before the last stop, however fast the machine is

    async def handler(task: Number, _context: TaskContext[Any, Number]) -> Number:
        asyncio.get_running_loop().call_later(0.002, worker.stop)
        return task

    for _ in range(5):
        worker = site.worker(handler, concurrency=concurrency)
        await worker.run()
    assert set((await site.statuses()).values()) == {("COMPLETED", 0), ("PENDING", 0)}


async def test_a_stopped_worker_leaves_no_claim_behind(site: Site) -> None:
    """However a stop and a claim meet, each task is completed, or waits with no attempt burnt."""
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
    statuses = list((await site.statuses()).values())
    assert set(statuses) <= {("COMPLETED", 0), ("PENDING", 0)}
    assert statuses.count(("COMPLETED", 0)) == count
