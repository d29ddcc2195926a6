"""Workers against the real manager."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from jobnik_sdk import (
    Handler,
    HandlerStyle,
    JobnikClient,
    JobStatus,
    JobType,
    Producer,
    StageType,
    TaskContext,
    TaskStatus,
    Worker,
)
from pydantic import BaseModel

_SHORT = timedelta(milliseconds=20)
plain = JobType("plain")


class Number(BaseModel):
    """A task's data and its result."""

    value: int


async def _job(producer: Producer, *stages: tuple[StageType[Number, Any], int]) -> Any:  # noqa: ANN401 a job, its type does not matter
    job = await producer.create_job(plain)
    for stage_type, tasks in stages:
        stage = await producer.create_stage(job, stage_type)
        await producer.create_tasks(stage, stage_type, [Number(value=n) for n in range(tasks)])
    return job


async def test_two_workers_finish_a_job_of_two_stages(client: JobnikClient, producer: Producer, own_name: str) -> None:
    """The second stage begins when the first is done, each task is run once, and the job is completed."""
    first = StageType(f"{own_name}-1", task=Number, result=Number)
    second = StageType(f"{own_name}-2", task=Number)
    order: list[str] = []
    job = await _job(producer, (first, 20), (second, 1))

    async def one(task: Number, _context: TaskContext) -> Number:
        order.append(str(task.value))
        return task

    async def two(_task: Number, _context: TaskContext) -> None:
        order.append("end")
        workers[0].stop()
        workers[1].stop()

    workers = (
        Worker(client, [Handler(first, one, concurrency=4)], poll_max_delay=_SHORT),
        Worker(client, [Handler(second, two)], poll_max_delay=_SHORT),
    )
    await asyncio.gather(*(worker.run() for worker in workers))
    assert sorted(order[:-1], key=int) == [str(n) for n in range(20)]
    assert order[-1] == "end"
    done = await producer.get_job(job, plain)
    assert (done.status, done.percentage) == (JobStatus.COMPLETED, 100)


async def test_threads_share_the_work(client: JobnikClient, producer: Producer, own_name: str) -> None:
    """Plain functions in threads complete every task once."""
    stage_type = StageType(own_name, task=Number, result=Number)
    job = await _job(producer, (stage_type, 30))
    done: list[int] = []

    def handler(task: Number, _context: TaskContext) -> Number:
        done.append(task.value)
        if len(done) == 30:
            worker.stop()
        return task

    in_threads = Handler(stage_type, handler, concurrency=4, style=HandlerStyle.THREAD)
    worker = Worker(client, [in_threads], poll_max_delay=_SHORT)
    await worker.run()
    assert sorted(done) == list(range(30))
    assert (await producer.get_job(job, plain)).status is JobStatus.COMPLETED


async def test_task_that_always_fails_fails_its_job(client: JobnikClient, producer: Producer, own_name: str) -> None:
    """Three attempts, then the job has failed; the worker is still there."""
    stage_type = StageType(own_name, task=Number)
    job = await producer.create_job(plain)
    stage = await producer.create_stage(job, stage_type)
    await producer.create_tasks(stage, stage_type, [Number(value=1)])
    attempts: list[int] = []

    async def handler(_task: Number, context: TaskContext) -> None:
        attempts.append(context.attempt)
        if context.attempt == context.max_attempts:
            worker.stop()
        raise ValueError("never")

    worker = Worker(client, [Handler(stage_type, handler)], poll_max_delay=_SHORT)
    await worker.run()
    assert attempts == [1, 2, 3]
    assert (await producer.get_job(job, plain)).status is JobStatus.FAILED


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_nothing_is_left_in_progress_by_a_stop(
    concurrency: int, client: JobnikClient, producer: Producer, own_name: str
) -> None:
    """However a stop and a claim meet, each task is completed or still waiting."""
    stage_type = StageType(own_name, task=Number)
    job = await producer.create_job(plain)
    stage = await producer.create_stage(job, stage_type)
    await producer.create_tasks(stage, stage_type, [Number(value=n) for n in range(40)])

    workers: list[Worker] = []

    async def handler(_task: Number, _context: TaskContext) -> None:
        asyncio.get_running_loop().call_later(0.002, workers[-1].stop)

    for _ in range(5):
        workers.append(Worker(client, [Handler(stage_type, handler, concurrency=concurrency)], poll_max_delay=_SHORT))
        await workers[-1].run()
    statuses = {task.status for task in await producer.get_tasks(stage, stage_type)}
    assert statuses == {TaskStatus.COMPLETED, TaskStatus.PENDING}
