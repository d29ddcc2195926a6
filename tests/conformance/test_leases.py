"""Leases: a long task stays with its worker, orders reach handlers, and no task is lost with a worker.

Each test also states the behaviour on a manager that has part A of the protocol only.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from jobnik_sdk import AnswerError, JobnikClient, TaskContext, Worker

from tests.conformance.managers import Manager
from tests.conformance.transports import CutTransport, LossyTransport
from tests.conformance.workload import LEASE, Number, Workload, new_worker


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until the manager shows that a condition is true."""
    while not await condition():  # noqa: ASYNC110 another thread makes it true
        await asyncio.sleep(0.05)


async def test_long_task_keeps_its_lease_and_reports_progress(workload: Workload, part_b: bool) -> None:  # noqa: FBT001 pytest passes it by name
    """A heartbeat renews the lease while the handler runs, and carries its progress and its checkpoint.

    Without leases, no other worker gets the task either, but progress and checkpoints are not stored.
    """
    progress_seen = asyncio.Event()
    checkpoints: list[Any] = []

    async def handler(_task: Number, context: TaskContext[Any, Any]) -> Number:
        checkpoints.append(context.checkpoint)
        if context.attempt == 1:
            context.progress(0.25, "a quarter")
            context.save_checkpoint({"page": 1})
            await progress_seen.wait()
            context.save_checkpoint({"page": 2})
            raise ValueError("again")
        worker.stop()
        return Number(value=1)

    async def is_stored() -> bool:
        task = (await workload.tasks())[1]
        return part_b and task.get("progress", {}).get("fraction") == 0.25

    await workload.fill(1)
    worker = workload.worker(handler)
    working = asyncio.create_task(worker.run())
    started = time.monotonic()
    if part_b:
        await _until(is_stored)
        task = (await workload.tasks())[1]
        assert (task["progress"]["message"], task["checkpoint"]) == ("a quarter", {"page": 1})
        await asyncio.sleep(max(started + 2 * LEASE.total_seconds() - time.monotonic(), 0))
    progress_seen.set()
    await working
    assert checkpoints == [None, {"page": 2} if part_b else None]
    assert await workload.statuses() == {1: ("COMPLETED", 1)}


async def test_abort_cancels_the_handler(
    workload: Workload,
    part_b: bool,  # noqa: FBT001 as above
    is_original: bool,  # noqa: FBT001 as above
) -> None:
    """The handler of a task whose job is aborted is cancelled with a reason.

    Without leases, it continues and its report is refused; the worker continues with the next task.
    """
    begun, aborted = asyncio.Event(), asyncio.Event()
    reasons: list[str | None] = []

    async def handler(task: Number, context: TaskContext[Any, Any]) -> Number:
        if task.value == 1:
            begun.set()
            await aborted.wait()
            try:
                await asyncio.sleep(60 if part_b else 0)
            finally:
                reasons.append(context.cancellation.reason)
        else:
            worker.stop()
        return task

    await workload.fill(1)
    worker = workload.worker(handler)
    working = asyncio.create_task(worker.run())
    await begun.wait()
    await workload.producer.abort_job(workload.job)
    aborted.set()
    assert await workload.statuses() == {1: ("IN_PROGRESS" if is_original else "ABORTED", 0)}
    await workload.fill(2)
    await working
    assert reasons == ["job aborted" if part_b else None]
    assert await workload.statuses() == {2: ("COMPLETED", 0)}


async def test_drain_releases_tasks_that_take_too_long(workload: Workload, part_b: bool) -> None:  # noqa: FBT001 as above
    """A task that ends in time is completed; another is cancelled and released, and uses up no attempt.

    Without leases, a task cannot be released: it uses up an attempt.
    """
    begun = asyncio.Semaphore(0)
    reasons: list[str | None] = []

    async def handler(task: Number, context: TaskContext[Any, Any]) -> Number:
        begun.release()
        try:
            await asyncio.sleep(0.2 if task.value == 1 else 60)
        except asyncio.CancelledError:
            reasons.append(context.cancellation.reason)
            raise
        return task

    await workload.fill(1, 2, 3)
    worker = workload.worker(handler, concurrency=3, drain_timeout=timedelta(seconds=2))
    working = asyncio.create_task(worker.run())
    for _ in range(3):
        await begun.acquire()
    assert worker.ready
    worker.stop()
    assert not worker.ready
    await working
    back = ("PENDING", 0) if part_b else ("RETRIED", 1)
    assert await workload.statuses() == {1: ("COMPLETED", 0), 2: back, 3: back}
    assert reasons == ["drain", "drain"]
    if part_b:
        assert [attempt["outcome"] for attempt in await workload.attempts(2)] == ["RELEASED"]


async def test_manager_orders_a_drain(workload: Workload, part_b: bool) -> None:  # noqa: FBT001 as above
    """A worker that is ordered to drain finishes its tasks and stops. Without leases, there are no such orders."""
    await workload.fill(1)
    begun = asyncio.Event()

    async def handler(task: Number, _context: TaskContext[Any, Any]) -> Number:
        begun.set()
        return task

    async def is_known() -> bool:
        return worker.id in {listed["id"] for listed in await workload.ask("/v1/workers")}

    worker = workload.worker(handler)
    working = asyncio.create_task(worker.run())
    await begun.wait()
    order = workload.client.request("PUT", f"/v1/workers/{worker.id}", json={"drain": True})
    if part_b:
        await _until(is_known)
        await order
    else:
        with pytest.raises(AnswerError, match="NOT_FOUND"):
            await order
        worker.stop()
    await working
    assert await workload.statuses() == {1: ("COMPLETED", 0)}
    if part_b:
        assert worker.id not in {listed["id"] for listed in await workload.ask("/v1/workers")}


async def test_claim_whose_answer_is_lost_loses_no_task(
    manager: Manager,
    workload: Workload,
    part_b: bool,  # noqa: FBT001 as above
) -> None:
    """The lease expires, the attempt counts, and the task can be claimed again.

    Without leases, the task stays in progress until the manager treats it as stale.
    """
    done: list[int] = []

    async def handler(task: Number, _context: TaskContext[Any, Any]) -> Number:
        done.append(task.value)
        if not part_b or len(done) == 2:
            worker.stop()
        return task

    transport = LossyTransport(manager.transport, *(("POST", "/claim") if part_b else ("PATCH", "/dequeue")))
    async with JobnikClient(manager.url, transport=transport) as client:
        await workload.fill(1, 2)
        worker = new_worker(client, workload.handler(handler))
        await worker.run()
    assert transport.lost == 1
    assert done == ([2, 1] if part_b else [2])
    assert await workload.statuses() == {1: ("COMPLETED", 1) if part_b else ("IN_PROGRESS", 0), 2: ("COMPLETED", 0)}
    if part_b:
        assert [attempt["outcome"] for attempt in await workload.attempts(1)] == ["EXPIRED", "COMPLETED"]


@pytest.mark.parametrize("manager", ["reference", "fake"], indirect=True)  # without leases, none can be lost
async def test_worker_that_lost_its_lease_changes_nothing(manager: Manager, workload: Workload) -> None:
    """A worker whose heartbeats are lost is fenced: its handler is cancelled, and the other worker's report counts."""
    begun, taken = asyncio.Event(), asyncio.Event()
    reasons: list[str | None] = []
    transport = CutTransport(manager.transport)
    transport.cut = True

    async def stubborn(_task: Number, context: TaskContext[Any, Any]) -> Number:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            reasons.append(context.cancellation.reason)
        return Number(value=1)

    async def handler(_task: Number, _context: TaskContext[Any, Any]) -> Number:
        taken.set()
        return Number(value=2)

    async with JobnikClient(manager.url, transport=transport) as client:
        await workload.fill(1)
        workers: list[Worker] = [new_worker(client, workload.handler(stubborn)), workload.worker(handler)]
        working = [asyncio.create_task(workers[0].run())]
        await begun.wait()
        working.append(asyncio.create_task(workers[1].run()))
        await taken.wait()
        transport.cut = False
        while not reasons:  # noqa: ASYNC110 heartbeats are sent by another thread
            await asyncio.sleep(0.02)
        for worker in workers:
            worker.stop()
        await asyncio.gather(*working)
    task = (await workload.tasks())[1]
    assert (reasons, task["status"], task["result"]) == (["lease lost"], "COMPLETED", {"value": 2})
    assert [attempt["outcome"] for attempt in await workload.attempts(1)] == ["EXPIRED", "COMPLETED"]
