"""Workers: every task runs once, in order, until its job has ended."""

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
    NewTask,
    Priority,
    Producer,
    StageStatus,
    StageType,
    TaskContext,
)
from pydantic import BaseModel

from tests.conformance.workload import Number, Workload, new_worker, raw_tasks

plain = JobType("plain")


async def test_two_workers_finish_a_job_of_two_stages(client: JobnikClient, producer: Producer, own_name: str) -> None:
    """The second stage starts when the first is completed, each task runs once, and the job is completed."""
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


async def test_threads_run_tasks_concurrently(workload: Workload) -> None:
    """Plain functions in threads complete each task once."""
    await workload.fill(*range(30))
    done: list[int] = []

    def handler(task: Number, _context: TaskContext[Any, Number]) -> Number:
        done.append(task.value)
        if len(done) == 30:
            worker.stop()
        return task

    worker = new_worker(workload.client, workload.handler(handler, concurrency=4, style=HandlerStyle.THREAD))
    await worker.run()
    assert sorted(done) == list(range(30))
    assert await workload.job_status() == "COMPLETED"


async def test_higher_priorities_run_first(workload: Workload) -> None:
    """Then older tasks, regardless of the order in which the jobs were created."""
    done: list[int] = []

    async def handler(task: Number, _context: TaskContext[Any, Number]) -> Number:
        done.append(task.value)
        if len(done) == 5:
            worker.stop()
        return task

    await workload.fill(5, priority=Priority.VERY_LOW)
    await workload.fill(3, 4, priority=Priority.MEDIUM)
    await workload.fill(1, 2, priority=Priority.VERY_HIGH)
    worker = workload.worker(handler)
    await worker.run()
    assert done == [1, 2, 3, 4, 5]


async def test_idle_worker_claims_new_tasks(workload: Workload) -> None:
    """Tasks that are created while the queue is empty are run."""
    begun = asyncio.Event()
    done: list[int] = []

    async def handler(task: Number, _context: TaskContext[Any, Number]) -> Number:
        done.append(task.value)
        begun.set()
        return task

    worker = workload.worker(handler)
    working = asyncio.create_task(worker.run())
    for value in range(3):
        begun.clear()
        await workload.fill(value)
        await begun.wait()
    worker.stop()
    await working
    assert done == [0, 1, 2]


async def test_each_stage_type_has_a_concurrency_of_its_own(client: JobnikClient, own_name: str) -> None:
    """Handlers of different styles in one worker use all of their slots, and no more."""
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


async def test_task_that_always_fails_ends_its_job(workload: Workload) -> None:
    """After the last attempt the job has failed, and the worker is still running."""
    await workload.fill(1, max_attempts=4)
    attempts: list[int] = []

    async def handler(_task: Number, context: TaskContext[Any, Number]) -> Number:
        attempts.append(context.attempt)
        if context.attempt == context.max_attempts:
            worker.stop()
        raise ValueError("never")

    worker = workload.worker(handler)
    await worker.run()
    assert attempts == [1, 2, 3, 4]
    assert (await workload.statuses(), await workload.job_status()) == ({1: ("FAILED", 4)}, "FAILED")


async def test_paused_job_is_not_claimed_from(workload: Workload) -> None:
    """Its tasks are not claimed, a task in progress can be finished, and the job continues when it is resumed."""
    done: list[int] = []

    async def handler(task: Number, _context: TaskContext[Any, Number]) -> Number:
        done.append(task.value)
        if task.value == 1:
            await workload.producer.pause_job(paused)
        if task.value == 9:
            await workload.producer.resume_job(paused)
        if len(done) == 4:
            worker.stop()
        return task

    await workload.fill(1, 2, 3)
    paused = workload.job
    await workload.fill(9)
    worker = workload.worker(handler)
    await worker.run()
    assert done == [1, 9, 2, 3]


async def test_report_ends_a_paused_job(workload: Workload) -> None:
    """The last report completes the job although it is paused."""
    await workload.fill(1)

    async def handler(task: Number, _context: TaskContext[Any, Number]) -> Number:
        await workload.producer.pause_job(workload.job)
        worker.stop()
        return task

    worker = workload.worker(handler)
    await worker.run()
    assert await workload.job_status() == "COMPLETED"


async def test_waiting_stage_is_started_by_a_client(workload: Workload) -> None:
    """Its tasks are not claimed before that."""
    order: list[str] = []
    await workload.fill(1)
    producer, job, first = workload.producer, workload.job, workload.stage
    last = StageType(f"{workload.stage_type.name[:45]}-last", task=Number)
    stage = await producer.create_stage(job, last, waiting=True)
    await producer.create_tasks(stage, last, [Number(value=2)])

    async def handler(task: Number, _context: TaskContext[Any, Number]) -> Number:
        order.append("first")
        return task

    async def at_last(_task: Number, _context: TaskContext) -> None:
        order.append("last")
        worker.stop()

    worker = new_worker(workload.client, workload.handler(handler), Handler(last, at_last))
    working = asyncio.create_task(worker.run())
    while (await producer.get_stage(first, workload.stage_type)).status is not StageStatus.COMPLETED:  # noqa: ASYNC110 the worker makes it so
        await asyncio.sleep(0.01)
    order.append(str((await producer.get_stage(stage, last)).status))
    await producer.start_stage(stage)
    await working
    assert order == ["first", "WAITING", "last"]
    assert await workload.job_status() == "COMPLETED"


async def test_unreadable_task_fails_alone(workload: Workload, part_b: bool) -> None:  # noqa: FBT001 pytest passes it by name
    """Its attempts fail without a call of the handler, and other tasks are run."""

    class Older(BaseModel):
        name: str

    await workload.fill(1, 2)
    older = StageType(workload.stage_type.name, task=Older)
    stage = await workload.producer.create_stage(await workload.producer.create_job(plain), older)
    await workload.producer.create_tasks(stage, older, [NewTask(Older(name="a"), max_attempts=3)])
    done: list[int] = []

    async def handler(task: Number, _context: TaskContext[Any, Number]) -> Number:
        done.append(task.value)
        return task

    worker = workload.worker(handler, concurrency=3)
    working = asyncio.create_task(worker.run())
    while (await workload.producer.get_stage(stage, older)).status is not StageStatus.FAILED:  # noqa: ASYNC110 as above
        await asyncio.sleep(0.01)
    worker.stop()
    await working
    (task,) = await raw_tasks(workload.client, stage.id)
    assert (sorted(done), task["status"], task["attempts"]) == ([1, 2], "FAILED", 3)
    if part_b:
        assert (task["error"]["type"], task["error"]["message"]) == (
            "UnreadableTaskError",
            "data.value: Field required",
        )


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_stop_leaves_no_task_in_progress(concurrency: int, workload: Workload) -> None:
    """Whenever the worker stops, each task is completed or waiting."""
    await workload.fill(*range(400))  # more than can be completed before the last stop, even on a fast machine

    async def handler(task: Number, _context: TaskContext[Any, Number]) -> Number:
        asyncio.get_running_loop().call_later(0.002, worker.stop)
        return task

    for _ in range(5):
        worker = workload.worker(handler, concurrency=concurrency)
        await worker.run()
    assert set((await workload.statuses()).values()) == {("COMPLETED", 0), ("PENDING", 0)}


async def test_stop_during_a_claim_loses_no_task(workload: Workload) -> None:
    """Whenever the worker stops, each task is completed, or waiting with no attempt used up."""
    await workload.fill(*range(30))
    count = 0

    async def handler(task: Number, _context: TaskContext[Any, Any]) -> Number:
        nonlocal count
        count += 1
        return task

    for turn in range(10):
        worker = workload.worker(handler, concurrency=2)
        asyncio.get_running_loop().call_later(0.005 * turn, worker.stop)
        await worker.run()
    statuses = list((await workload.statuses()).values())
    assert set(statuses) <= {("COMPLETED", 0), ("PENDING", 0)}
    assert statuses.count(("COMPLETED", 0)) == count
