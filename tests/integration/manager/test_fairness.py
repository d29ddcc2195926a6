"""Load or locks on the work of one stage type do not stop the work of another."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AsyncExitStack
from functools import partial
from typing import Any
from uuid import UUID

import httpx2
import pytest
from reference_manager.store.pool import Connection, Database

from tests.support.claims import claim_statement
from tests.support.protocol import Client
from tests.support.sessions import ROW_LOCKS, Session, wait_for_lock_waiters
from tests.support.statistics import buffers, touched
from tests.support.worker import LeasedWorker, report
from tools.backlog import add_backlog
from tools.manager import ManagerProcess

Start = Callable[..., ManagerProcess]

CONCURRENT_REQUESTS = 200
"""The number of concurrent requests of each kind, far more than there are connections."""


@pytest.fixture
async def busy_http(start_manager: Start) -> AsyncGenerator[httpx2.AsyncClient]:
    """A client with enough connections for all requests, of a manager with four database connections."""
    manager = start_manager("--database-connections", "4")
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(base_url=manager.url, limits=limits, timeout=30) as http:
        yield http


class PendingRequests:
    """Requests that are under way."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._tasks: list[asyncio.Task[Any]] = []
        stack.push_async_callback(self._cancel)

    def send(self, request: Callable[[], Coroutine[Any, Any, Any]], times: int = CONCURRENT_REQUESTS) -> None:
        """Send a request this many times at once."""
        self._tasks += [asyncio.create_task(request()) for _ in range(times)]

    @property
    def answered(self) -> int:
        """The number of requests that have a response."""
        return sum(task.done() for task in self._tasks)

    async def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def lock_job(other: Session, job: dict[str, Any]) -> None:
    """Lock a job, as a transaction does that is stuck in the middle of a change."""
    await other.execute("SELECT pg_advisory_xact_lock(job_key($1))", UUID(job["id"]))


async def work_off(worker: LeasedWorker, stage_type: str) -> None:
    """Process all four tasks of a stage, with every kind of request that a worker sends."""
    done, failed, back = await worker.claim(stage_type, 3)
    assert (await worker.heartbeat(done, failed, back))["lost"] == []
    reports = (report(done, "COMPLETED"), report(failed, "FAILED"), report(back, "RELEASED"))
    assert [answer["accepted"] for answer in await worker.settle(*reports)] == [True] * 3
    answers = await worker.complete(*await worker.claim(stage_type, 3))
    assert [answer["status"] for answer in answers] == ["COMPLETED"] * 3


async def test_a_locked_job_delays_only_its_own_stage_type(
    busy_http: httpx2.AsyncClient, other: Session, stage_type: str
) -> None:
    """While many requests of one type wait for the lock of its job, the tasks of another type are processed.

    Claims of that type skip the locked jobs, and get their tasks once these are released.
    """
    client, worker = Client(busy_http), LeasedWorker(busy_http)
    flooded = f"{stage_type}-flooded"
    held, unstarted = await client.job(), await client.job(priority="VERY_HIGH")
    stage = await client.stage(held, flooded)
    await client.tasks(stage, 10)
    taken = await worker.claim(flooded, 10)
    await client.tasks(await client.stage(unstarted, flooded), 1)
    job = await client.job()
    await client.tasks(await client.stage(job, stage_type), 4)

    async with AsyncExitStack() as stack, other.transaction():
        await lock_job(other, held)
        await lock_job(other, unstarted)
        pending = PendingRequests(stack)
        waiting = asyncio.create_task(worker.claim(flooded, waitSeconds=20))
        for outcome in ("COMPLETED", "FAILED", "RELEASED"):
            pending.send(partial(worker.settle, report(taken[0], outcome)))
        await wait_for_lock_waiters(other, 1)
        pending.send(lambda: client.tasks(stage))
        await wait_for_lock_waiters(other, 1)
        await work_off(worker, stage_type)
        assert await client.claim(flooded) is None
        # Of the two connections that are not reserved for workers, one waits, and the other serves all other requests.
        assert await client.status(job) == "COMPLETED"
        await wait_for_lock_waiters(other, 1)
        assert pending.answered == 0
        assert not waiting.done()
    assert [task["job"]["id"] for task in await waiting] == [unstarted["id"]]
    assert await client.status(job) == "COMPLETED"


async def test_a_report_that_waited_for_a_lock_counts(
    busy_http: httpx2.AsyncClient, other: Session, stage_type: str
) -> None:
    """A request with reports of a locked job and of others gets its usual response when the lock is released."""
    client, worker = Client(busy_http), LeasedWorker(busy_http)
    jobs = [await client.job() for _ in range(3)]
    for job in jobs:
        await client.tasks(await client.stage(job, stage_type), 2)
    tasks = await worker.claim(stage_type, 6)
    reports = [report(task, "COMPLETED") for task in tasks]
    reports[3] |= {"leaseId": 1_000_000}
    async with AsyncExitStack() as stack:
        async with other.transaction():
            await lock_job(other, jobs[1])
            settling = asyncio.create_task(worker.settle(*reports))
            pending = PendingRequests(stack)
            pending.send(lambda: worker.settle(report(tasks[2], "COMPLETED")), 5)
            await wait_for_lock_waiters(other, 1)
            while [await client.status(job) for job in (jobs[0], jobs[2])] != ["COMPLETED"] * 2:
                pass  # they are settled meanwhile
        assert [answer["accepted"] for answer in await settling] == [True, True, True, False, True, True]
    assert await client.status(jobs[1]) == "IN_PROGRESS"
    assert (await worker.settle(report(tasks[3], "COMPLETED")))[0]["accepted"]
    assert await client.status(jobs[1]) == "COMPLETED"


LOCKS = ROW_LOCKS | {
    "lease": "SELECT FROM leases WHERE stage_id IN (SELECT id FROM stages WHERE job_id = $1) FOR UPDATE",
    "worker": """
        SELECT FROM workers WHERE id IN (
            SELECT worker_id FROM leases WHERE stage_id IN (SELECT id FROM stages WHERE job_id = $1)
        ) FOR UPDATE
    """,
}


@pytest.mark.parametrize("row", LOCKS)
@pytest.mark.parametrize("waiting", [0, 1])
async def test_a_locked_row_delays_only_its_own_job(
    busy_http: httpx2.AsyncClient, other: Session, stage_type: str, row: str, waiting: int
) -> None:
    """Reports and heartbeats of other jobs are answered, although they share batches with those that need the row."""
    client = Client(busy_http)
    workers = [LeasedWorker(busy_http) for _ in range(3)]
    jobs = [await client.job() for _ in workers]
    held: list[list[dict[str, Any]]] = []
    for worker, job in zip(workers, jobs, strict=True):
        await client.tasks(await client.stage(job, f"{stage_type}-{job['id']}"), 4 + waiting)
        held.append(await worker.claim(f"{stage_type}-{job['id']}", 4))
        await worker.heartbeat(*held[-1])

    def heartbeat(number: int) -> asyncio.Task[dict[str, Any]]:
        running = [task | {"progress": {"fraction": 0.5}} for task in held[number]]
        return asyncio.create_task(workers[number].heartbeat(*running))

    async with other.transaction():
        await other.execute(LOCKS[row], UUID(jobs[0]["id"]))
        for number in (1, 2):
            hindered = heartbeat(0)
            assert (await heartbeat(number))["lost"] == []
            await asyncio.wait([hindered])
            assert (hindered.exception() is None) == (row not in ("task", "worker"))
        blocked = asyncio.create_task(workers[0].settle(*[report(task, "COMPLETED") for task in held[0]]))
        for worker, tasks in zip(workers[1:], held[1:], strict=True):
            settled = await worker.settle(
                *[report(task, "COMPLETED") for task in tasks[:3]], report(tasks[3], "FAILED")
            )
            assert [answer["accepted"] for answer in settled] == [True] * 4
    assert [answer["accepted"] for answer in await blocked] == [True] * 4


def claim(stage_type: str) -> tuple[Any, ...]:
    """Return the statement and arguments of a claim of ten tasks under leases."""
    return claim_statement(stage_type, 10, "guard")


async def costs(connection: Connection) -> tuple[int, int]:
    """Return the rows and pages that a claim of the quiet type reads."""
    return await touched(connection, *claim("quiet")), await buffers(connection, *claim("quiet"))


@pytest.mark.timeout(180)  # writes fifty thousand rows
async def test_the_cost_of_a_claim_does_not_depend_on_other_types(database: Database) -> None:
    """Fifty thousand tasks of another type add no rows to a claim, only depth to the indexes that it reads."""
    async with database.connection() as connection:
        await add_backlog(database, "quiet", 1_000)
        rows, pages = [await costs(connection) for _ in range(3)][-1]
        await add_backlog(database, "flooded", 50_000)
        for _ in range(100):
            await connection.fetch(*claim("flooded"))
        rows_beside, pages_beside = [await costs(connection) for _ in range(3)][-1]
        assert rows_beside <= rows
        # One more index level for each row that is found through it.
        assert pages_beside <= pages + 2 * rows
