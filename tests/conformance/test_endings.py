"""How attempts end: what a handler returns or raises, and what the manager makes of it.

Part A of the protocol has words for completed and for failed alone: what else a handler says is one of the two there.
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

from tests.conformance.site import Number, Site, new_worker

HOUR = timedelta(hours=1)


async def _work_off(site: Site, function: Any, until: int, **options: Any) -> list[tuple[int, int]]:  # noqa: ANN401 passed on
    """Run a worker until so many attempts have been made; which: value and number of each."""
    made: list[tuple[int, int]] = []

    async def handler(task: Number, context: TaskContext[Any, Number]) -> Number:
        made.append((task.value, context.attempt))
        if len(made) == until:
            worker.stop()
        return await function(task, context)

    worker = new_worker(site.client, site.handler(handler, **options))
    await worker.run()
    return made


async def test_a_result_is_kept(site: Site, part_b: bool) -> None:  # noqa: FBT001 pytest passes it by name
    """The task has it; part A of the protocol has no place for it."""

    async def handler(task: Number, _context: TaskContext[Any, Any]) -> Number:
        return Number(value=task.value * 10)

    await site.fill(1, 2)
    await _work_off(site, handler, until=2)
    results = {value: task.get("result") for value, task in (await site.tasks()).items()}
    assert results == ({1: {"value": 10}, 2: {"value": 20}} if part_b else {1: None, 2: None})
    assert await site.job_status() == "COMPLETED"


async def test_what_a_handler_knows(site: Site) -> None:
    """Its task, its attempt, its stage and its job."""
    seen: list[Any] = []

    async def handler(task: Number, context: TaskContext[Any, Number]) -> Number:
        seen.append((task.value, context.attempt, context.max_attempts, context.stage.type, context.stage.order))
        seen.append((context.job.name, context.job.priority, context.job.data, context.stage.data.value))
        seen.append((context.job.id, context.stage.id))
        return task

    await site.fill(1)
    await _work_off(site, handler, until=1)
    assert seen == [
        (1, 1, 3, site.stage_type.name, 1),
        ("numbers", "HIGH", {"value": 7}, 8),
        (site.job.id, site.stage.id),
    ]


async def test_an_error_is_tried_again(site: Site, part_b: bool) -> None:  # noqa: FBT001 as above
    """The next attempt may succeed; part B tells of each what was wrong, where, and in whose hands."""

    async def handler(task: Number, context: TaskContext[Any, Any]) -> Number:
        if context.attempt == 1:
            raise ValueError("broken")
        return task

    await site.fill(1)
    assert await _work_off(site, handler, until=2) == [(1, 1), (1, 2)]
    assert await site.statuses() == {1: ("COMPLETED", 1)}
    if part_b:
        first, second = await site.attempts(1)
        assert (first["outcome"], first["error"]["type"], first["error"]["message"]) == (
            "FAILED",
            "ValueError",
            "broken",
        )
        assert 'raise ValueError("broken")' in first["error"]["stack"]
        assert (second["outcome"], second["error"]) == ("COMPLETED", None)
        assert first["workerId"] == second["workerId"]


async def test_retry_later(site: Site, part_b: bool) -> None:  # noqa: FBT001 as above
    """The next attempt comes after the delay, for part A at once; the error is the one that it speaks for."""

    async def handler(task: Number, context: TaskContext[Any, Any]) -> Number:
        if (task.value, context.attempt) == (1, 1):
            raise RetryLater(HOUR) from ValueError("not yet")
        return task

    await site.fill(1, 2)
    made = await _work_off(site, handler, until=2 if part_b else 3)
    assert sorted(made) == ([(1, 1), (2, 1)] if part_b else [(1, 1), (1, 2), (2, 1)])
    assert await site.statuses() == {1: ("RETRIED" if part_b else "COMPLETED", 1), 2: ("COMPLETED", 0)}
    if part_b:
        assert (await site.attempts(1))[0]["error"]["type"] == "ValueError"


async def test_do_not_retry(site: Site, part_b: bool) -> None:  # noqa: FBT001 as above
    """It ends the task whatever attempts it has left; for part A it is a failed attempt like any other."""

    async def handler(_task: Number, _context: TaskContext[Any, Any]) -> Number:
        raise DoNotRetry("never")

    await site.fill(1)
    made = await _work_off(site, handler, until=1 if part_b else 3)
    assert await site.statuses() == {1: ("FAILED", len(made))}
    assert await site.job_status() == "FAILED"


async def test_snooze(site: Site, part_b: bool) -> None:  # noqa: FBT001 as above
    """The task comes back after the delay and no attempt is burnt; for part A one is, and it comes back at once."""

    async def handler(task: Number, context: TaskContext[Any, Any]) -> Number:
        if (task.value, context.attempt) == (1, 1):
            raise Snooze(HOUR)
        return task

    await site.fill(1, 2)
    made = await _work_off(site, handler, until=2 if part_b else 3)
    assert sorted(made) == ([(1, 1), (2, 1)] if part_b else [(1, 1), (1, 2), (2, 1)])
    assert await site.statuses() == {1: ("PENDING", 0) if part_b else ("COMPLETED", 1), 2: ("COMPLETED", 0)}


async def test_a_result_that_does_not_fit_fails_the_attempt(site: Site, part_b: bool) -> None:  # noqa: FBT001 as above
    """What is not the stage type's result is told as any other error."""

    async def handler(_task: Number, _context: TaskContext[Any, Any]) -> Any:  # noqa: ANN401 on purpose
        return {"value": "many"}

    await site.fill(1, max_attempts=1)
    await _work_off(site, handler, until=1)
    assert await site.statuses() == {1: ("FAILED", 1)}
    if part_b:
        error = (await site.attempts(1))[0]["error"]
        assert (error["type"], error["message"].partition(":")[0]) == ("InvalidPayloadError", "result.value")


async def test_a_result_that_the_manager_does_not_take_fails_the_attempt(
    client: JobnikClient,
    own_name: str,
    part_b: bool,  # noqa: FBT001 as above
) -> None:
    """It is said once, with the reason, and the others of its batch are not taken along; part A takes no results."""

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
    large, small = (await client.request("GET", f"/v1/stages/{stage.id}/tasks")).json()
    assert small["status"] == "COMPLETED"
    if part_b:
        assert (large["status"], large["error"]["type"]) == ("FAILED", "PayloadTooLargeError")
    else:
        assert large["status"] == "COMPLETED"


async def test_an_attempt_that_takes_too_long_has_failed(site: Site, part_b: bool) -> None:  # noqa: FBT001 as above
    """The handler is cancelled after its time, and knows why."""
    reasons: list[str | None] = []

    async def handler(task: Number, context: TaskContext[Any, Any]) -> Number:
        if context.attempt == 1:
            try:
                await asyncio.sleep(60)
            finally:
                reasons.append(context.cancellation.reason)
        return task

    await site.fill(1)
    await _work_off(site, handler, until=2, timeout=timedelta(seconds=0.1))
    assert (reasons, await site.statuses()) == (["timeout"], {1: ("COMPLETED", 1)})
    if part_b:
        assert (await site.attempts(1))[0]["error"]["type"] == "TimeoutError"


async def test_a_plain_function_is_interrupted_as_well(site: Site) -> None:
    """In a thread it sees the cancellation that it waits for."""
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

    await site.fill(1)
    in_thread = site.handler(handler, style=HandlerStyle.THREAD, timeout=timedelta(seconds=0.1))
    worker = new_worker(site.client, in_thread)
    await worker.run()
    assert (reasons, await site.statuses()) == (["timeout"], {1: ("COMPLETED", 1)})
