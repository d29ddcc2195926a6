"""What leases bring: long tasks stay their worker's, orders reach handlers, and nothing is lost with a worker.

Each test says what there is instead where the manager has part A of the protocol alone.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from jobnik_sdk import AnswerError, JobnikClient, TaskContext, Worker

from tests.conformance.managers import Manager
from tests.conformance.site import LEASE, Number, Site, new_worker
from tests.conformance.wires import CutWire, LossyWire


async def _until(seen: Callable[[], Awaitable[bool]]) -> None:
    """Wait until the manager shows it."""
    while not await seen():  # noqa: ASYNC110 it happens elsewhere
        await asyncio.sleep(0.05)


async def test_leases_outlive_a_long_task_and_progress_is_told(site: Site, part_b: bool) -> None:  # noqa: FBT001 pytest passes it by name
    """A heartbeat renews the lease while the handler works, and takes its progress and its checkpoint along.

    Without leases nobody takes the task either, but progress goes nowhere, and no checkpoint comes back.
    """
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

    async def is_told() -> bool:
        task = (await site.tasks())[1]
        return part_b and task.get("progress", {}).get("fraction") == 0.25

    await site.fill(1)
    worker = site.worker(handler)
    working = asyncio.create_task(worker.run())
    started = time.monotonic()
    if part_b:
        await _until(is_told)
        task = (await site.tasks())[1]
        assert (task["progress"]["message"], task["checkpoint"]) == ("a quarter", {"page": 1})
        await asyncio.sleep(max(started + 2 * LEASE.total_seconds() - time.monotonic(), 0))
    told.set()
    await working
    assert left == [None, {"page": 2} if part_b else None]
    assert await site.statuses() == {1: ("COMPLETED", 1)}


async def test_an_abort_reaches_the_handler(site: Site, part_b: bool) -> None:  # noqa: FBT001 as above
    """The handler of a task whose job is aborted is cancelled, and knows why.

    Without leases it works on, and what it reports is refused; the worker goes on with the next task.
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

    await site.fill(1)
    worker = site.worker(handler)
    working = asyncio.create_task(worker.run())
    await begun.wait()
    await site.producer.abort_job(site.job)
    aborted.set()
    assert await site.statuses() == {1: ("ABORTED", 0)}
    await site.fill(2)
    await working
    assert reasons == ["job aborted" if part_b else None]
    assert await site.statuses() == {2: ("COMPLETED", 0)}


async def test_a_drain_hands_back_what_takes_too_long(site: Site, part_b: bool) -> None:  # noqa: FBT001 as above
    """What ends in time is completed; what does not is cancelled and handed back, and no attempt is burnt.

    Without leases there is no handing back: an attempt is burnt.
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

    await site.fill(1, 2, 3)
    worker = site.worker(handler, concurrency=3, drain_timeout=timedelta(seconds=2))
    working = asyncio.create_task(worker.run())
    for _ in range(3):
        await begun.acquire()
    assert worker.ready
    worker.stop()
    assert not worker.ready
    await working
    back = ("PENDING", 0) if part_b else ("RETRIED", 1)
    assert await site.statuses() == {1: ("COMPLETED", 0), 2: back, 3: back}
    assert reasons == ["drain", "drain"]
    if part_b:
        assert [attempt["outcome"] for attempt in await site.attempts(2)] == ["RELEASED"]


async def test_the_manager_orders_a_drain(site: Site, part_b: bool) -> None:  # noqa: FBT001 as above
    """A worker that is told to drain finishes and ends by itself; without leases nobody can tell it."""
    await site.fill(1)
    begun = asyncio.Event()

    async def handler(task: Number, _context: TaskContext[Any, Any]) -> Number:
        begun.set()
        return task

    async def is_known() -> bool:
        return worker.id in {told["id"] for told in await site.ask("/v1/workers")}

    worker = site.worker(handler)
    working = asyncio.create_task(worker.run())
    await begun.wait()
    order = site.client.request("PUT", f"/v1/workers/{worker.id}", json={"drain": True})
    if part_b:
        await _until(is_known)
        await order
    else:
        with pytest.raises(AnswerError, match="NOT_FOUND"):
            await order
        worker.stop()
    await working
    assert await site.statuses() == {1: ("COMPLETED", 0)}
    if part_b:
        assert worker.id not in {told["id"] for told in await site.ask("/v1/workers")}


async def test_a_claim_whose_answer_was_lost_strands_nothing(
    manager: Manager,
    site: Site,
    part_b: bool,  # noqa: FBT001 as above
) -> None:
    """The lease of a task that reached nobody ends, the attempt counts, and the task is handed out again.

    Without leases it stays in nobody's hands until the manager finds it stale.
    """
    done: list[int] = []

    async def handler(task: Number, _context: TaskContext[Any, Any]) -> Number:
        done.append(task.value)
        if not part_b or len(done) == 2:
            worker.stop()
        return task

    wire = LossyWire(manager.transport, *(("POST", "/claim") if part_b else ("PATCH", "/dequeue")))
    async with JobnikClient(manager.url, transport=wire) as client:
        await site.fill(1, 2)
        worker = new_worker(client, site.handler(handler))
        await worker.run()
    assert wire.lost == 1
    assert done == ([2, 1] if part_b else [2])
    assert await site.statuses() == {1: ("COMPLETED", 1) if part_b else ("IN_PROGRESS", 0), 2: ("COMPLETED", 0)}
    if part_b:
        assert [attempt["outcome"] for attempt in await site.attempts(1)] == ["EXPIRED", "COMPLETED"]


@pytest.mark.parametrize("manager", ["reference", "fake"], indirect=True)  # without leases there are none to lose
async def test_who_lost_a_lease_changes_nothing(manager: Manager, site: Site) -> None:
    """A worker that cannot be heard is fenced: its handler is cancelled when it hears so, the other's word counts."""
    begun, taken = asyncio.Event(), asyncio.Event()
    reasons: list[str | None] = []
    wire = CutWire(manager.transport)
    wire.cut = True

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

    async with JobnikClient(manager.url, transport=wire) as client:
        await site.fill(1)
        workers: list[Worker] = [new_worker(client, site.handler(stubborn)), site.worker(handler)]
        working = [asyncio.create_task(workers[0].run())]
        await begun.wait()
        working.append(asyncio.create_task(workers[1].run()))
        await taken.wait()
        wire.cut = False
        while not reasons:  # noqa: ASYNC110 the heart beats in another thread
            await asyncio.sleep(0.02)
        for worker in workers:
            worker.stop()
        await asyncio.gather(*working)
    task = (await site.tasks())[1]
    assert (reasons, task["status"], task["result"]) == (["lease lost"], "COMPLETED", {"value": 2})
    assert [attempt["outcome"] for attempt in await site.attempts(1)] == ["EXPIRED", "COMPLETED"]
