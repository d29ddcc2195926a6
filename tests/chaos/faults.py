"""The faults that chaos injects. Each returns a function that repairs it, or None if no repair is needed."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from random import Random
from typing import TypeAlias
from uuid import UUID

import httpx2
from reference_manager.store.errors import DRIVER_ERRORS

from tests.chaos.cluster import (
    LEASE,
    SDK_WORKER,
    Cluster,
    UnsettledError,
    WorkerProcess,
    eventually,
    sql,
)
from tests.chaos.database import Networks, on_server
from tests.chaos.load import create_probes
from tests.support.sessions import Session, session
from tools.proxy import Cut, RequestFault

Repair: TypeAlias = Callable[[], Awaitable[None]]
Fault: TypeAlias = Callable[[Cluster], Awaitable[Repair | None]]
Lock: TypeAlias = Callable[..., Awaitable[object]]
"""Takes a lock of a job, given a connection and the id of the job."""

LOCK_TIME, LONG_LOCK_TIME = 2.5, 11.0
"""Seconds for which the lock of a job is held: longer than a lease, and longer than a manager's lock timeout."""
PAUSE = 2 * LEASE.total_seconds()
"""Seconds for which a manager is stopped."""
CONCURRENT_REQUESTS = 12
"""Requests to each manager that need the same lock: three times its number of database connections."""
OUTAGE, LONG_OUTAGE = 2.5, 30.0
"""Seconds of a network outage: longer than a lease, and longer than any client's timeout."""
DELAYS = 0.05, 0.5
"""Seconds by which an answer of a slow PostgreSQL is late: the minimum and the maximum."""
SLOW_TIME = 4.0
"""Seconds for which PostgreSQL is slow."""
PROBE_TIMEOUT = 20.0
"""Seconds within which other jobs proceed while a job is locked."""
FAULT_RATE = 0.3
"""Share of requests with a fault."""


def describe(fault: Fault) -> str:
    """Return the description of a fault, from its docstring."""
    return (fault.__doc__ or "").rstrip(".")


async def kill_postgres(cluster: Cluster) -> None:
    """Kill PostgreSQL with SIGKILL and restart it."""
    cluster.servers.kill()
    cluster.servers.restart()


async def promote_standby(cluster: Cluster) -> None:
    """Kill the primary PostgreSQL with SIGKILL and promote a synchronous standby."""
    servers = cluster.servers
    servers.start_standby()
    await cluster.ask(sql.use_standby)
    await cluster.ask(sql.reload)

    async def is_synchronous() -> bool:
        return await cluster.ask(sql.synchronous_standbys) == 1

    await eventually("the standby is synchronous", is_synchronous)
    await cluster.ask(sql.checkpoint)
    await cluster.wait_for_progress()
    servers.kill()
    await on_server(servers.promote_standby(), sql.promote)


async def silence_connection(cluster: Cluster) -> Repair:
    """Silence one connection of a manager to PostgreSQL, which stays open."""
    networks = cluster.random.choice(cluster.networks)
    networks.to_primary.silence_one(cluster.random.choice)
    return _in_background(_wait_until_replaced(networks))


async def silence_database(cluster: Cluster) -> Repair:
    """Silence all connections of a manager to PostgreSQL, which stay open."""
    networks = cluster.random.choice(cluster.networks)
    for network in networks.all:
        network.silence()

    async def mend() -> None:
        await asyncio.sleep(OUTAGE)
        for network in networks.all:
            network.mend()
        await _wait_until_replaced(networks)

    return _in_background(mend())


async def slow_database(cluster: Cluster) -> Repair:
    """Delay all answers of PostgreSQL."""
    networks = [network for networks in cluster.networks for network in networks.all]
    for network in networks:
        random = Random(cluster.random.random())  # noqa: S311 - each network runs in its own thread
        network.choose_delay = lambda random=random: random.uniform(*DELAYS)

    async def recover() -> None:
        await asyncio.sleep(SLOW_TIME)
        for network in networks:
            network.choose_delay = lambda: 0.0

    return _in_background(recover())


async def kill_backend(cluster: Cluster) -> None:
    """Kill a PostgreSQL backend with SIGKILL, which makes PostgreSQL end all backends and recover."""
    for backend in (await cluster.ask(sql.backends))[:1]:
        with suppress(ProcessLookupError):
            os.kill(backend, signal.SIGKILL)


async def end_backend(cluster: Cluster) -> None:
    """End a manager's database connection."""
    for backend in (await cluster.ask(sql.backends))[:1]:
        await cluster.ask(sql.end_backend, pid=backend)


async def kill_manager(cluster: Cluster) -> Repair | None:
    """Kill a manager with SIGKILL."""
    living = [number for number, manager in enumerate(cluster.managers) if manager.process.poll() is None]
    if not living:
        return None
    number = cluster.random.choice(living)
    cluster.managers[number].process.kill()
    cluster.managers[number].process.wait()

    async def repair() -> None:
        cluster.restart_manager(number)

    return repair


async def roll_back(cluster: Cluster) -> Repair:
    """Replace a manager with one of the previous release, and later that one with one of this release."""
    number = cluster.random.randrange(len(cluster.managers))
    cluster.start_previous_release(number)
    previous = cluster.managers[number]

    async def roll_out() -> None:
        if cluster.managers[number] is previous:
            cluster.restart_manager(number)

    return roll_out


async def stop_manager(cluster: Cluster) -> Repair:
    """Stop a manager with SIGSTOP for longer than a lease."""
    process = cluster.random.choice(cluster.managers).process
    process.send_signal(signal.SIGSTOP)

    async def resume() -> None:
        await asyncio.sleep(PAUSE)
        process.send_signal(signal.SIGCONT)

    return _in_background(resume())


async def kill_worker(cluster: Cluster) -> Repair:
    """Kill a busy worker with SIGKILL."""
    number = cluster.random.choice(await _busy_workers(cluster))
    worker = cluster.workers[number]
    worker.kill()
    cluster.killed.add(worker.name)

    async def repair() -> None:
        if cluster.workers[number] is worker:
            cluster.replace_worker(number)

    return repair


async def stop_worker(cluster: Cluster) -> Repair:
    """Stop a busy worker with SIGSTOP until all its leases have expired."""
    worker, leases = await _stopped(cluster)

    async def repair() -> None:
        async def over() -> bool:
            return not await cluster.ask(sql.leases_left, leases=leases)

        await eventually("the leases of a stopped worker end", over)
        cluster.fenced.update(await cluster.ask(sql.expired, leases=leases))
        worker.process.send_signal(signal.SIGCONT)

    return repair


async def drain_worker(cluster: Cluster) -> Repair | None:
    """Stop a busy worker with SIGTERM, after which it releases unfinished tasks."""
    sdk = [number for number in await _busy_workers(cluster) if cluster.workers[number].program == SDK_WORKER]
    if not sdk:
        return None
    number = cluster.random.choice(sdk)
    worker = cluster.workers[number]
    cluster.drained.add(worker.name)
    worker.process.send_signal(signal.SIGTERM)

    async def repair() -> None:
        async def ended() -> bool:
            return not worker.is_alive

        await eventually("a worker ends after SIGTERM", ended)
        if worker.process.returncode != 0 and worker.name not in cluster.killed:
            raise UnsettledError(f"{worker.name} ended with exit code {worker.process.returncode} after SIGTERM")
        if cluster.workers[number] is worker:
            cluster.replace_worker(number)

    return repair


async def cut_network(cluster: Cluster, *, length: float = OUTAGE) -> Repair:
    """Cut the network in front of a manager, which refuses connections or loses data."""
    proxy = cluster.random.choice(cluster.proxies)
    proxy.cut(cluster.random.choice(list(Cut)))

    async def restore() -> None:
        await asyncio.sleep(length)
        proxy.mend()

    return _in_background(restore())


async def cut_network_for_long(cluster: Cluster) -> Repair:
    """Cut the network in front of a manager for half a minute."""
    return await cut_network(cluster, length=LONG_OUTAGE)


async def drop_answers(cluster: Cluster) -> Repair:
    """Inject every request fault on every proxy."""
    before = {proxy: proxy.fault_counts.copy() for proxy in cluster.proxies}
    for proxy in cluster.proxies:
        random = Random(cluster.random.random())  # noqa: S311 - each proxy runs in its own thread
        proxy.choose = lambda _request, random=random: (
            random.choice(list(RequestFault)) if random.random() < FAULT_RATE else None
        )

    async def repair() -> None:
        async def enough() -> bool:
            return all(
                proxy.fault_counts[kind] > before[proxy][kind] for proxy in cluster.proxies for kind in RequestFault
            )

        await eventually("every request fault happens", enough)
        for proxy in cluster.proxies:
            proxy.choose = lambda _request: None

    return repair


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
    rows = sql.lock_job_row, sql.lock_stage_row, sql.lock_task_rows
    return await _hold(cluster, _and_others_proceed(cluster, cluster.random.choice(rows)), LONG_LOCK_TIME)


async def hold_snapshot(cluster: Cluster) -> Repair | None:
    """Keep a transaction that has read all tables open, while all jobs proceed."""

    async def read_all(connection: Session, job: UUID) -> None:  # noqa: ARG001 - as the statements that lock a job
        await sql.lock_tables(connection)

    return await _hold(cluster, _and_others_proceed(cluster, read_all), LONG_LOCK_TIME)


async def fill_pool(cluster: Cluster) -> Repair | None:
    """Hold the lock of a job while every database connection waits for it."""

    async def lock_and_ask(connection: Session, job: UUID) -> None:
        await sql.lock_job(connection, job=job)
        requests.append(_in_background(_send_requests(cluster, job)))

    requests: list[Repair] = []
    release = await _hold(cluster, lock_and_ask, LOCK_TIME)

    async def repair() -> None:
        for end in (release, *requests) if release else requests:
            await end()

    return repair


async def pause_job(cluster: Cluster) -> Repair | None:
    """Pause and resume a job in progress."""
    job = await _job_under_way(cluster)
    if job is None:
        return None
    await _set_status(cluster, job, "PAUSED")

    async def repair() -> None:
        async def answered() -> bool:
            return await _set_status(cluster, job, "PENDING")

        await eventually("a manager resumes the job or refuses to", answered)

    return repair


async def abort_job(cluster: Cluster) -> None:
    """Abort a job in progress."""
    job = await _job_under_way(cluster)
    if job is not None:
        cluster.aborted.add(job)
        await _set_status(cluster, job, "ABORTED")


LOCKS: tuple[Fault, ...] = (
    hold_lock,
    hold_lock_for_long,
    hold_job_row,
    hold_stage_row,
    hold_task_rows,
    hold_row_for_long,
    hold_snapshot,
)

FAULTS: tuple[Fault, ...] = (
    kill_postgres,
    kill_backend,
    end_backend,
    promote_standby,
    silence_connection,
    silence_database,
    slow_database,
    *LOCKS,
    fill_pool,
    roll_back,
    kill_manager,
    stop_manager,
    pause_job,
    abort_job,
    cut_network,
    cut_network_for_long,
    drop_answers,
    stop_worker,
    kill_worker,
    drain_worker,
)
"""All faults in the order of their repair: a repair comes before the repairs that depend on it."""

HARMLESS: tuple[Fault, ...] = (*LOCKS, pause_job)
"""Faults that delay only one job until they are repaired."""

KILLS: tuple[Fault, ...] = (kill_postgres, kill_backend, end_backend, kill_manager, kill_worker)


async def _wait_until_replaced(networks: Networks) -> None:
    """Wait until a manager has closed its silent connections."""

    async def are_closed() -> bool:
        return not any(network.has_silent_connections for network in networks.all)

    await eventually("the manager replaces silent connections", are_closed)


async def _busy_workers(cluster: Cluster) -> list[int]:
    """Return the numbers of the busy workers, or of all living workers if none is busy."""
    cluster.journal.read()
    living = [
        number
        for number, worker in enumerate(cluster.workers)
        if worker.is_alive and worker.name not in cluster.drained  # a draining worker must not be delayed
    ]
    return [number for number in living if cluster.journal.unanswered[cluster.workers[number].name]] or living


async def _stopped(cluster: Cluster) -> tuple[WorkerProcess, list[int]]:
    """Stop a worker that holds leases, and return it with its leases."""
    while True:
        worker = cluster.workers[cluster.random.choice(await _busy_workers(cluster))]
        worker.process.send_signal(signal.SIGSTOP)
        leases = await cluster.ask(sql.leases_of, worker=worker.name)
        if leases:
            return worker, leases
        worker.process.send_signal(signal.SIGCONT)


async def _job_under_way(cluster: Cluster) -> UUID | None:
    jobs = await cluster.ask(sql.jobs_under_way)
    return cluster.random.choice(jobs) if jobs else None


def _in_background(end: Coroutine[None, None, None]) -> Repair:
    """Let a fault end in the background while other faults start. The repair waits for its end."""
    running = asyncio.create_task(end)

    async def repair() -> None:
        await running

    return repair


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

    return _in_background(release())


@asynccontextmanager
async def _transaction(cluster: Cluster) -> AsyncGenerator[Session]:
    async with session(cluster.servers.primary.url) as connection:
        await connection.execute("SET lock_timeout = '2s'")
        async with connection.transaction():
            yield connection


def _and_others_proceed(cluster: Cluster, lock: Lock) -> Lock:
    """Take a lock, and wait until the tasks of new jobs have ended, unless another fault may delay any job.

    A worker of the SDK sends one request with reports at a time, so it may wait for the report of a locked job.
    """

    async def lock_and_wait(connection: Session, job: UUID) -> None:
        await lock(connection, job=job)
        if cluster.disturbed:
            return
        probes = await eventually("a manager creates jobs", lambda: create_probes(cluster), limit=PROBE_TIMEOUT)
        sdk_workers = {worker.name for worker in cluster.workers if worker.program == SDK_WORKER}

        async def have_ended() -> bool:
            tasks = await sql.unfinished_tasks(connection, jobs=probes)
            cluster.journal.read()
            return all(cluster.journal.workers_that_ended(str(task)) & sdk_workers for task in tasks)

        await eventually("other jobs proceed while a job is locked", have_ended, limit=PROBE_TIMEOUT)

    return lock_and_wait


async def _send_requests(cluster: Cluster, job: UUID) -> None:
    """Send concurrent requests to the managers that need the lock of the job."""
    async with httpx2.AsyncClient(timeout=30) as http:

        async def ask(url: str) -> None:
            with suppress(httpx2.TransportError):
                await http.patch(f"{url}/v1/jobs/{job}/priority", json={"priority": "MEDIUM"})

        await asyncio.gather(*(ask(manager.url) for manager in cluster.managers for _ in range(CONCURRENT_REQUESTS)))


async def _set_status(cluster: Cluster, job: UUID, status: str) -> bool:
    """Request a status for a job; return whether a manager accepted or refused the request."""
    async with httpx2.AsyncClient(timeout=3) as http:
        for manager in cluster.managers:
            with suppress(httpx2.TransportError):
                response = await http.put(f"{manager.url}/v1/jobs/{job}/status", json={"status": status})
                if response.status_code < httpx2.codes.INTERNAL_SERVER_ERROR:
                    return True
    return False
