"""What may happen to a site: each trouble strikes, and gives back how to mend what it did."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from random import Random
from typing import TypeAlias
from uuid import UUID

import asyncpg
import httpx2

from tests.chaos.site import DATABASE_ERRORS, LEASE, SDK, Site, UnsettledError, WorkerProcess, eventually, sql
from tools.proxy import Cut, Mischief

Mend: TypeAlias = Callable[[], Awaitable[None]]
Trouble: TypeAlias = Callable[[Site], Awaitable[Mend | None]]

LOCKED, LOCKED_FOR_LONG = 2.5, 11.0
"""Seconds that a job's lock is held: longer than a lease; longer than a manager waits for it."""
ASLEEP = 2 * LEASE.total_seconds()
"""Seconds that a manager stands still."""
CROWD = 12
"""Requests to each manager that all want one lock: three times as many as it has connections."""
AWAY, AWAY_FOR_LONG = 2.5, 30.0
"""Seconds for which the network is: longer than a lease, and longer than anybody waits for an answer."""
SHARE = 0.3
"""Of the requests, so many are interfered with."""


def about(trouble: Trouble) -> str:
    """What a trouble does, in words."""
    return (trouble.__doc__ or "").rstrip(".")


async def kill_postgres(site: Site) -> None:
    """Kill -9 PostgreSQL, and start it again on its data."""
    os.kill(int((site.folder / "data" / "postgres" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
    site.restart_postgres()


async def kill_backend(site: Site) -> None:
    """Kill -9 a process of PostgreSQL that serves a manager: PostgreSQL ends all the others, and recovers."""
    for backend in (await site.ask(sql.backends))[:1]:
        with suppress(ProcessLookupError):
            os.kill(backend, signal.SIGKILL)


async def end_backend(site: Site) -> None:
    """End a connection of a manager."""
    for backend in (await site.ask(sql.backends))[:1]:
        await site.ask(sql.end_backend, pid=backend)


async def kill_manager(site: Site) -> Mend | None:
    """Kill -9 a manager."""
    living = [number for number, manager in enumerate(site.managers) if manager.process.poll() is None]
    if not living:
        return None
    number = site.random.choice(living)
    site.managers[number].process.kill()
    site.managers[number].process.wait()

    async def mend() -> None:
        site.restart_manager(number)

    return mend


async def stop_manager(site: Site) -> Mend:
    """Let a manager stand still for longer than a lease."""
    process = site.random.choice(site.managers).process
    process.send_signal(signal.SIGSTOP)

    async def go_on() -> None:
        await asyncio.sleep(ASLEEP)
        process.send_signal(signal.SIGCONT)

    return _by_itself(go_on())


async def kill_worker(site: Site) -> Mend:
    """Kill -9 a worker that has tasks in hand."""
    number = site.random.choice(await _busy_workers(site))
    worker = site.workers[number]
    worker.kill()
    site.killed.add(worker.name)

    async def mend() -> None:
        if site.workers[number] is worker:
            site.replace_worker(number)

    return mend


async def stop_worker(site: Site) -> Mend:
    """Let a worker that has tasks in hand stand still until all its leases are over."""
    worker, leases = await _stopped(site)

    async def mend() -> None:
        async def over() -> bool:
            return not await site.ask(sql.leases_left, leases=leases)

        await eventually("the leases of a worker that stands still end", over)
        site.fenced.update(await site.ask(sql.expired, leases=leases))
        worker.process.send_signal(signal.SIGCONT)

    return mend


async def drain_worker(site: Site) -> Mend | None:
    """Tell a worker that has tasks in hand to stop: it hands back what it cannot finish."""
    sdk = [number for number in await _busy_workers(site) if site.workers[number].program == SDK]
    if not sdk:
        return None
    number = site.random.choice(sdk)
    worker = site.workers[number]
    site.drained.add(worker.name)
    worker.process.send_signal(signal.SIGTERM)

    async def mend() -> None:
        async def ended() -> bool:
            return not worker.is_alive

        await eventually("a worker that is to stop ends", ended)
        if worker.process.returncode != 0 and worker.name not in site.killed:
            raise UnsettledError(f"{worker.name} was to stop, and ended with {worker.process.returncode}")
        if site.workers[number] is worker:
            site.replace_worker(number)

    return mend


async def cut_network(site: Site, *, length: float = AWAY) -> Mend:
    """Cut the network before a manager: connections are refused, or nothing arrives."""
    proxy = site.random.choice(site.proxies)
    proxy.cut(site.random.choice(list(Cut)))

    async def come_back() -> None:
        await asyncio.sleep(length)
        proxy.mend()

    return _by_itself(come_back())


async def cut_network_for_long(site: Site) -> Mend:
    """Cut the network before a manager for half a minute."""
    return await cut_network(site, length=AWAY_FOR_LONG)


async def drop_answers(site: Site) -> Mend:
    """Cut off requests, swallow answers, or let them come late, until each has happened to some."""
    before = {proxy: proxy.done.copy() for proxy in site.proxies}
    for proxy in site.proxies:
        random = Random(site.random.random())  # noqa: S311 - proxies run in threads: each has its own
        proxy.choose = lambda _request, random=random: (
            random.choice(list(Mischief)) if random.random() < SHARE else None
        )

    async def mend() -> None:
        async def enough() -> bool:
            return all(proxy.done[kind] > before[proxy][kind] for proxy in site.proxies for kind in Mischief)

        await eventually("every mischief happens", enough)
        for proxy in site.proxies:
            proxy.choose = lambda _request: None

    return mend


async def hold_lock(site: Site, *, length: float = LOCKED) -> Mend | None:
    """Hold the lock of a job that is being worked on."""
    job = await _job_under_way(site)
    return await _held(site, job, length) if job else None


async def hold_lock_for_long(site: Site) -> Mend | None:
    """Hold the lock of a job for longer than a manager waits for it."""
    return await hold_lock(site, length=LOCKED_FOR_LONG)


async def fill_pool(site: Site) -> Mend | None:
    """Hold the lock of a job, and let every connection to the database wait for it."""
    job = await _job_under_way(site)
    if job is None:
        return None
    let_go = await _held(site, job, LOCKED)
    crowd = _by_itself(_crowd(site, job))

    async def mend() -> None:
        await let_go()
        await crowd()

    return mend


async def pause_job(site: Site) -> Mend | None:
    """Pause a job that is being worked on, and resume it."""
    job = await _job_under_way(site)
    if job is None:
        return None
    await _tell(site, job, "PAUSED")

    async def mend() -> None:
        async def answered() -> bool:
            return await _tell(site, job, "PENDING")

        await eventually("a manager resumes a job, or says why not", answered)

    return mend


async def abort_job(site: Site) -> None:
    """Abort a job that is being worked on."""
    job = await _job_under_way(site)
    if job is not None:
        site.aborted.add(job)
        await _tell(site, job, "ABORTED")


TROUBLES: tuple[Trouble, ...] = (
    kill_postgres,
    kill_backend,
    end_backend,
    hold_lock,
    hold_lock_for_long,
    fill_pool,
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
"""In the order in which they are mended: what others need to be mended comes first."""

KILLS: tuple[Trouble, ...] = (kill_postgres, kill_backend, end_backend, kill_manager, kill_worker)


async def _busy_workers(site: Site) -> list[int]:
    """Workers that have tasks in hand; if none has, all that live."""
    site.journal.read()
    living = [
        number
        for number, worker in enumerate(site.workers)
        if worker.is_alive and worker.name not in site.drained  # which may not be held up
    ]
    return [number for number in living if site.journal.unanswered[site.workers[number].name]] or living


async def _stopped(site: Site) -> tuple[WorkerProcess, list[int]]:
    """A worker that stands still with leases in its hands."""
    while True:
        worker = site.workers[site.random.choice(await _busy_workers(site))]
        worker.process.send_signal(signal.SIGSTOP)
        leases = await site.ask(sql.leases_of, worker=worker.name)
        if leases:
            return worker, leases
        worker.process.send_signal(signal.SIGCONT)


async def _job_under_way(site: Site) -> UUID | None:
    jobs = await site.ask(sql.jobs_under_way)
    return site.random.choice(jobs) if jobs else None


def _by_itself(end: Coroutine[None, None, None]) -> Mend:
    """Let a trouble come to its end while others strike; to be waited for."""
    running = asyncio.create_task(end)

    async def mend() -> None:
        await running

    return mend


async def _held(site: Site, job: UUID, length: float) -> Mend:
    """Hold a job's lock for so long; unless another trouble holds it, or ends the connection."""
    stack = AsyncExitStack()
    with suppress(*DATABASE_ERRORS):
        await stack.enter_async_context(_lock(site, job))

    async def let_go() -> None:
        await asyncio.sleep(length)
        with suppress(*DATABASE_ERRORS):
            await stack.aclose()

    return _by_itself(let_go())


@asynccontextmanager
async def _lock(site: Site, job: UUID) -> AsyncGenerator[None]:
    settings = {"search_path": "jobnik", "lock_timeout": "2s"}
    connection = await asyncpg.connect(site.postgres.url, server_settings=settings)
    try:
        async with connection.transaction():
            await sql.lock_job(connection, job=job)
            yield
    finally:
        await connection.close()


async def _crowd(site: Site, job: UUID) -> None:
    """Ask the managers again and again for what needs the job's lock."""
    async with httpx2.AsyncClient(timeout=30) as http:

        async def ask(url: str) -> None:
            with suppress(httpx2.TransportError):
                await http.patch(f"{url}/v1/jobs/{job}/priority", json={"priority": "MEDIUM"})

        await asyncio.gather(*(ask(manager.url) for manager in site.managers for _ in range(CROWD)))


async def _tell(site: Site, job: UUID, status: str) -> bool:
    """Tell a manager to move a job; whether one has answered that it did, or may not."""
    async with httpx2.AsyncClient(timeout=3) as http:
        for manager in site.managers:
            with suppress(httpx2.TransportError):
                response = await http.put(f"{manager.url}/v1/jobs/{job}/status", json={"status": status})
                if response.status_code < httpx2.codes.INTERNAL_SERVER_ERROR:
                    return True
    return False
