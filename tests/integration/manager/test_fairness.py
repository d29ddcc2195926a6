"""Whatever floods or locks the work of one stage type, the work of another goes on."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import httpx2
import pytest
from reference_manager.store.pool import Connection, Database

from tests.support.claims import claim_of
from tests.support.protocol import Client
from tests.support.statistics import buffers, touched
from tests.support.worker import LeasedWorker, report
from tools.backlog import add_backlog
from tools.manager import ManagerProcess

Other: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Start = Callable[..., ManagerProcess]

CROWD = 200
"""Requests of one kind at once: far more than connections."""

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


@pytest.fixture
async def other(database_url: str) -> AsyncGenerator[Other]:
    """Somebody else's connection."""
    connection = await asyncpg.connect(database_url, server_settings={"search_path": "jobnik"})
    yield connection
    await connection.close()


@pytest.fixture
async def crowded(start_manager: Start) -> AsyncGenerator[httpx2.AsyncClient]:
    """A client, with a connection for each of a crowd, of a manager that has four to its database."""
    manager = start_manager("--database-connections", "4")
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(base_url=manager.url, limits=limits, timeout=30) as http:
        yield http


class Crowd:
    """Requests under way, none of which is answered yet."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._tasks: list[asyncio.Task[Any]] = []
        stack.push_async_callback(self._end)

    def send(self, request: Callable[[], Coroutine[Any, Any, Any]], times: int = CROWD) -> None:
        """Send a request so many times at once."""
        self._tasks += [asyncio.create_task(request()) for _ in range(times)]

    @property
    def answered(self) -> int:
        """How many have an answer."""
        return sum(task.done() for task in self._tasks)

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def lock_job(other: Other, job: dict[str, Any]) -> None:
    """Lock a job, as somebody would who stands still in the middle of a change."""
    await other.execute("SELECT pg_advisory_xact_lock(job_key($1))", UUID(job["id"]))


async def held_up(other: Other, waiters: int) -> None:
    """Wait until so many connections wait for a lock."""
    while await other.fetchval(WAITING) < waiters:
        pass


async def work_off(worker: LeasedWorker, stage_type: str) -> None:
    """Everything that a worker does with a stage of four tasks, to its end."""
    done, failed, back = await worker.claim(stage_type, 3)
    assert (await worker.beat(done, failed, back))["lost"] == []
    reports = (report(done, "COMPLETED"), report(failed, "FAILED"), report(back, "RELEASED"))
    assert [answer["accepted"] for answer in await worker.settle(*reports)] == [True] * 3
    answers = await worker.complete(*await worker.claim(stage_type, 3))
    assert [answer["status"] for answer in answers] == ["COMPLETED"] * 3


async def test_a_job_that_is_locked_holds_up_only_its_own(
    crowded: httpx2.AsyncClient, other: Other, stage_type: str
) -> None:
    """While crowds claim, report, wait and add for one type and wait for its job's lock, another type is worked off."""
    client, worker = Client(crowded), LeasedWorker(crowded)
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
        crowd = Crowd(stack)
        crowd.send(lambda: worker.claim(flooded, waitSeconds=20))
        crowd.send(lambda: client.claim(flooded))
        for outcome in ("COMPLETED", "FAILED", "RELEASED"):
            crowd.send(partial(worker.settle, report(taken[0], outcome)))
        await held_up(other, 2)
        crowd.send(lambda: client.tasks(stage))
        # One for the claims of the type, and both of those that are not for workers.
        await held_up(other, 3)
        await work_off(worker, stage_type)
        assert await other.fetchval(WAITING) == 3
        assert crowd.answered == 0
    assert await client.status(job) == "COMPLETED"


async def test_a_report_that_had_to_wait_counts(crowded: httpx2.AsyncClient, other: Other, stage_type: str) -> None:
    """What is reported of a locked job and of others in one request is answered as ever, once the lock is free."""
    client, worker = Client(crowded), LeasedWorker(crowded)
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
            crowd = Crowd(stack)
            crowd.send(lambda: worker.settle(report(tasks[2], "COMPLETED")), 5)
            await held_up(other, 1)
            assert [await client.status(job) for job in (jobs[0], jobs[2])] == ["COMPLETED"] * 2
        assert [answer["accepted"] for answer in await settling] == [True, True, True, False, True, True]
    assert await client.status(jobs[1]) == "IN_PROGRESS"
    assert (await worker.settle(report(tasks[3], "COMPLETED")))[0]["accepted"]
    assert await client.status(jobs[1]) == "COMPLETED"


def claim(stage_type: str) -> tuple[Any, ...]:
    """A claim of ten under leases, as statement and arguments."""
    return claim_of(stage_type, 10, "guard")


async def costs(connection: Connection) -> tuple[int, int]:
    """The rows and the pages that a claim of the quiet type looks at."""
    return await touched(connection, *claim("quiet")), await buffers(connection, *claim("quiet"))


@pytest.mark.timeout(60)  # writes fifty thousand rows
async def test_a_claim_costs_the_same_beside_a_flood(database: Database) -> None:
    """Fifty thousand tasks of another type, and the claims of them, lengthen no walk and deepen only the indexes."""
    async with database.connection() as connection:
        await add_backlog(database, "quiet", 1_000)
        rows, pages = [await costs(connection) for _ in range(3)][-1]
        await add_backlog(database, "flooded", 50_000)
        for _ in range(100):
            await connection.fetch(*claim("flooded"))
        rows_beside, pages_beside = [await costs(connection) for _ in range(3)][-1]
        assert rows_beside <= rows
        # One more level of an index for each row that is found by it.
        assert pages_beside <= pages + 2 * rows
