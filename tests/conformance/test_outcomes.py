"""Outcomes of attempts: what a handler returns or raises, and what follows from it.

Part A of the protocol has the outcomes COMPLETED and FAILED only. There, each other outcome becomes one of the two.
"""

import asyncio
from datetime import timedelta
from typing import Any

from jobnik_sdk import (
    DoNotRetry,
    Handler,
    HandlerStyle,
    JobnikClient,
    JobType,
    Producer,
    RetryLater,
    Snooze,
    StageType,
    TaskContext,
)
from pydantic import BaseModel

from tests.conformance.workload import Number, Workload, new_worker, raw_tasks

HOUR = timedelta(hours=1)


async def _run_worker(workload: Workload, function: Any, until: int, **options: Any) -> list[tuple[int, int]]:  # noqa: ANN401 passed on
    """Run a worker until this many attempts were made, and return the value and the number of each."""
    made: list[tuple[int, int]] = []

    async def handler(task: Number, context: TaskContext[Any, Number]) -> Number:
        made.append((task.value, context.attempt))
        if len(made) == until:
            worker.stop()
        return await function(task, context)

    worker = new_worker(workload.client, workload.handler(handler, **options))
    await worker.run()
    return made


async def test_result_is_stored(workload: Workload, part_b: bool) -> None:  # noqa: FBT001 pytest passes it by name
    """In the task. Part A of the protocol has no results."""

    async def handler(task: Number, _context: TaskContext[Any, Any]) -> Number:
        return Number(value=task.value * 10)

    await workload.fill(1, 2)
    await _run_worker(workload, handler, until=2)
    results = {value: task.get("result") for value, task in (await workload.tasks()).items()}
    assert results == ({1: {"value": 10}, 2: {"value": 20}} if part_b else {1: None, 2: None})
    assert await workload.job_status() == "COMPLETED"


async def test_context_of_a_handler(workload: Workload) -> None:
    """It has the task, the attempt, the stage and the job."""
    seen: list[Any] = []

    async def handler(task: Number, context: TaskContext[Any, Number]) -> Number:
        seen.append((task.value, context.attempt, context.max_attempts, context.stage.type, context.stage.order))
        seen.append((context.job.name, context.job.priority, context.job.data, context.stage.data.value))
        seen.append((context.job.id, context.stage.id))
        return task

    await workload.fill(1)
    await _run_worker(workload, handler, until=1)
    assert seen == [
        (1, 1, 3, workload.stage_type.name, 1),
        ("numbers", "HIGH", {"value": 7}, 8),
        (workload.job.id, workload.stage.id),
    ]


async def test_failed_attempt_is_retried(workload: Workload, part_b: bool) -> None:  # noqa: FBT001 as above
    """The next attempt can succeed. In part B, each attempt has its error, its stack and its worker."""

    async def handler(task: Number, context: TaskContext[Any, Any]) -> Number:
        if context.attempt == 1:
            raise ValueError("broken")
        return task

    await workload.fill(1)
    assert await _run_worker(workload, handler, until=2) == [(1, 1), (1, 2)]
    assert await workload.statuses() == {1: ("COMPLETED", 1)}
    if part_b:
        first, second = await workload.attempts(1)
        assert (first["outcome"], first["error"]["type"], first["error"]["message"]) == (
            "FAILED",
            "ValueError",
            "broken",
        )
        assert 'raise ValueError("broken")' in first["error"]["stack"]
        assert (second["outcome"], second["error"]) == ("COMPLETED", None)
        assert first["workerId"] == second["workerId"]


async def test_retry_later(workload: Workload, part_b: bool) -> None:  # noqa: FBT001 as above
    """The next attempt follows after the delay, in part A at once; the error is the cause of the exception."""

    async def handler(task: Number, context: TaskContext[Any, Any]) -> Number:
        if (task.value, context.attempt) == (1, 1):
            raise RetryLater(HOUR) from ValueError("not yet")
        return task

    await workload.fill(1, 2)
    made = await _run_worker(workload, handler, until=2 if part_b else 3)
    assert sorted(made) == ([(1, 1), (2, 1)] if part_b else [(1, 1), (1, 2), (2, 1)])
    assert await workload.statuses() == {1: ("RETRIED" if part_b else "COMPLETED", 1), 2: ("COMPLETED", 0)}
    if part_b:
        assert (await workload.attempts(1))[0]["error"]["type"] == "ValueError"


async def test_do_not_retry(workload: Workload, part_b: bool) -> None:  # noqa: FBT001 as above
    """The task fails even if attempts are left. In part A, it is an ordinary failed attempt."""

    async def handler(_task: Number, _context: TaskContext[Any, Any]) -> Number:
        raise DoNotRetry("never")

    await workload.fill(1)
    made = await _run_worker(workload, handler, until=1 if part_b else 3)
    assert await workload.statuses() == {1: ("FAILED", len(made))}
    assert await workload.job_status() == "FAILED"


async def test_snooze(workload: Workload, part_b: bool) -> None:  # noqa: FBT001 as above
    """The task can be claimed after the delay, and no attempt is used up. In part A, one is, and there is no delay."""

    async def handler(task: Number, context: TaskContext[Any, Any]) -> Number:
        if (task.value, context.attempt) == (1, 1):
            raise Snooze(HOUR)
        return task

    await workload.fill(1, 2)
    made = await _run_worker(workload, handler, until=2 if part_b else 3)
    assert sorted(made) == ([(1, 1), (2, 1)] if part_b else [(1, 1), (1, 2), (2, 1)])
    assert await workload.statuses() == {1: ("PENDING", 0) if part_b else ("COMPLETED", 1), 2: ("COMPLETED", 0)}


async def test_invalid_result_fails_the_attempt(workload: Workload, part_b: bool) -> None:  # noqa: FBT001 as above
    """A result that does not match the stage type is reported as an error."""

    async def handler(_task: Number, _context: TaskContext[Any, Any]) -> Any:  # noqa: ANN401 on purpose
        return {"value": "many"}

    await workload.fill(1, max_attempts=1)
    await _run_worker(workload, handler, until=1)
    assert await workload.statuses() == {1: ("FAILED", 1)}
    if part_b:
        error = (await workload.attempts(1))[0]["error"]
        assert (error["type"], error["message"].partition(":")[0]) == ("InvalidPayloadError", "result.value")


async def test_result_that_is_too_large_fails_the_attempt(
    client: JobnikClient,
    own_name: str,
    part_b: bool,  # noqa: FBT001 as above
) -> None:
    """It is reported once, with the reason, and other reports in its batch are not affected. Part A has no results."""

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

    worker = new_worker(client, Handler(stage_type, handler, concurrency=2))
    await worker.run()
    large, small = sorted(await raw_tasks(client, stage.id), key=lambda task: -task["data"]["value"])
    assert small["status"] == "COMPLETED"
    if part_b:
        assert (large["status"], large["error"]["type"]) == ("FAILED", "PayloadTooLargeError")
    else:
        assert large["status"] == "COMPLETED"


async def test_attempt_that_exceeds_its_timeout_fails(workload: Workload, part_b: bool) -> None:  # noqa: FBT001 as above
    """The handler is cancelled with a reason."""
    reasons: list[str | None] = []

    async def handler(task: Number, context: TaskContext[Any, Any]) -> Number:
        if context.attempt == 1:
            try:
                await asyncio.sleep(60)
            finally:
                reasons.append(context.cancellation.reason)
        return task

    await workload.fill(1)
    await _run_worker(workload, handler, until=2, timeout=timedelta(seconds=0.1))
    assert (reasons, await workload.statuses()) == (["timeout"], {1: ("COMPLETED", 1)})
    if part_b:
        assert (await workload.attempts(1))[0]["error"]["type"] == "TimeoutError"


async def test_plain_function_is_interrupted_at_its_timeout(workload: Workload) -> None:
    """A function in a thread sees the cancellation in its wait."""
    reasons: list[str | None] = []

    def handler(task: Number, context: TaskContext[Any, Any]) -> Number:
        if context.attempt == 1:
            try:
                context.cancellation.wait(timedelta(minutes=1))
            finally:
                reasons.append(context.cancellation.reason)
            context.cancellation.raise_if_requested()
        worker.stop()
        return task

    await workload.fill(1)
    in_thread = workload.handler(handler, style=HandlerStyle.THREAD, timeout=timedelta(seconds=0.1))
    worker = new_worker(workload.client, in_thread)
    await worker.run()
    assert (reasons, await workload.statuses()) == (["timeout"], {1: ("COMPLETED", 1)})
