"""Locks that a foreign session holds while all other jobs proceed."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TypeAlias
from uuid import UUID

import httpx2
from reference_manager.store.errors import DRIVER_ERRORS

from tests.chaos.cluster import Cluster, eventually, sql
from tests.chaos.faults.repairs import Fault, Repair, in_background
from tests.chaos.load import create_probes
from tests.support.sessions import Session, session

Lock: TypeAlias = Callable[..., Awaitable[object]]
"""Takes a lock of a job, given a connection and the id of the job."""
LOCK_TIME, LONG_LOCK_TIME = 2.5, 11.0
"""Seconds for which the lock of a job is held: longer than a lease, and longer than a manager's lock timeout."""
LONG_TRANSACTION = 30.0
"""Seconds for which a snapshot is kept."""
PROBE_TIMEOUT = 20.0
"""Seconds within which other jobs proceed while a job is locked."""
CONCURRENT_REQUESTS = 12
"""Requests to each manager that need the same lock: three times its number of database connections."""


async def hold_lock(cluster: Cluster) -> Repair | None:
    """Hold the lock of a job, while all other jobs proceed."""
    return await _hold(cluster, _and_others_proceed(cluster, sql.lock_job), LOCK_TIME)


async def hold_lock_for_long(cluster: Cluster) -> Repair | None:
    """Hold the lock of a job for longer than a manager's lock timeout, while all other jobs proceed."""
    return await _hold(cluster, _and_others_proceed(cluster, sql.lock_job), LONG_LOCK_TIME)


async def hold_job_row(cluster: Cluster) -> Repair | None:
    """Lock the row of a job, while all other jobs proceed."""
    return await _hold(cluster, _and_others_proceed(cluster, sql.lock_job_row), LOCK_TIME)


async def hold_stage_row(cluster: Cluster) -> Repair | None:
    """Lock the row of a stage, while all other jobs proceed."""
    return await _hold(cluster, _and_others_proceed(cluster, sql.lock_stage_row), LOCK_TIME)


async def hold_task_rows(cluster: Cluster) -> Repair | None:
    """Lock the rows of a job's unfinished tasks, while all other jobs proceed."""
    return await _hold(cluster, _and_others_proceed(cluster, sql.lock_task_rows), LOCK_TIME)


async def hold_row_for_long(cluster: Cluster) -> Repair | None:
    """Lock a row for longer than a manager's lock timeout, while all other jobs proceed."""
    lock = cluster.random.choice((sql.lock_job_row, sql.lock_stage_row, sql.lock_task_rows))
    return await _hold(cluster, _and_others_proceed(cluster, lock), LONG_LOCK_TIME)


async def hold_snapshot(cluster: Cluster) -> Repair | None:
    """Keep a transaction that has read all tables open, while all jobs proceed."""
    return await _hold(cluster, _and_others_proceed(cluster, _read_all), LOCK_TIME)


async def hold_snapshot_for_long(cluster: Cluster) -> Repair | None:
    """Keep a transaction that has read all tables open for half a minute, while all jobs proceed."""
    return await _hold(cluster, _and_others_proceed(cluster, _read_all), LONG_TRANSACTION)


async def fill_pool(cluster: Cluster) -> Repair | None:
    """Hold the lock of a job while every database connection waits for it."""

    async def lock_and_ask(connection: Session, job: UUID) -> None:
        await sql.lock_job(connection, job=job)
        requests.append(in_background(_send_requests(cluster, job)))

    requests: list[Repair] = []
    release = await _hold(cluster, lock_and_ask, LOCK_TIME)

    async def repair() -> None:
        for end in (release, *requests) if release else requests:
            await end()

    return repair


LOCKS: tuple[Fault, ...] = (
    hold_lock,
    hold_lock_for_long,
    hold_job_row,
    hold_stage_row,
    hold_task_rows,
    hold_row_for_long,
    hold_snapshot,
    hold_snapshot_for_long,
)


async def _hold(cluster: Cluster, lock: Lock, length: float) -> Repair | None:
    """Hold a lock of a job for `length` seconds, unless another fault holds it or ends the connection."""
    jobs = await cluster.ask(sql.waiting_jobs)
    if not jobs:
        return None
    job = cluster.random.choice(jobs)
    async with AsyncExitStack() as stack:
        with suppress(*DRIVER_ERRORS):
            connection = await stack.enter_async_context(_transaction(cluster))
            await lock(connection, job=job)
        held = stack.pop_all()

    async def release() -> None:
        await asyncio.sleep(length)
        with suppress(*DRIVER_ERRORS):
            await held.aclose()

    return in_background(release())


@asynccontextmanager
async def _transaction(cluster: Cluster) -> AsyncGenerator[Session]:
    async with session(cluster.servers.primary.url) as connection:
        await connection.execute("SET lock_timeout = '2s'")
        async with connection.transaction():
            yield connection


def _and_others_proceed(cluster: Cluster, lock: Lock) -> Lock:
    """Take a lock, and wait until the tasks of new jobs have ended, unless another fault may delay any job."""

    async def lock_and_wait(connection: Session, job: UUID) -> None:
        await lock(connection, job=job)
        if cluster.disturbed:
            return
        probes = await eventually("a manager creates jobs", lambda: create_probes(cluster), limit=PROBE_TIMEOUT)

        async def have_ended() -> bool:
            return not await sql.unfinished_tasks(connection, jobs=probes)

        await eventually("other jobs proceed while a job is locked", have_ended, limit=PROBE_TIMEOUT)

    return lock_and_wait


async def _read_all(connection: Session, job: UUID) -> None:  # noqa: ARG001 - as the statements that lock a job
    await sql.lock_tables(connection)


async def _send_requests(cluster: Cluster, job: UUID) -> None:
    """Send concurrent requests to the managers that need the lock of the job."""
    async with httpx2.AsyncClient(timeout=30) as http:

        async def ask(url: str) -> None:
            with suppress(httpx2.TransportError):
                await http.patch(f"{url}/v1/jobs/{job}/priority", json={"priority": "MEDIUM"})

        await asyncio.gather(*(ask(manager.url) for manager in cluster.managers for _ in range(CONCURRENT_REQUESTS)))
