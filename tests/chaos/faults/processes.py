"""Faults of managers and workers."""

import asyncio
import signal

from tests.chaos.cluster import LEASE, SDK_WORKER, Cluster, UnsettledError, WorkerProcess, eventually, sql
from tests.chaos.faults.repairs import Repair, in_background
from tests.support.processes import descendants, is_running

PAUSE = 2 * LEASE.total_seconds()
"""Seconds for which a manager is stopped."""


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


async def stop_manager(cluster: Cluster) -> Repair:
    """Stop a manager with SIGSTOP for longer than a lease."""
    process = cluster.random.choice(cluster.managers).process
    process.send_signal(signal.SIGSTOP)

    async def resume() -> None:
        await asyncio.sleep(PAUSE)
        process.send_signal(signal.SIGCONT)

    return in_background(resume())


async def roll_back(cluster: Cluster) -> Repair:
    """Replace a manager with one of the previous release, and later that one with one of this release."""
    number = cluster.random.randrange(len(cluster.managers))
    cluster.start_previous_release(number)
    previous = cluster.managers[number]

    async def roll_out() -> None:
        if cluster.managers[number] is previous:
            cluster.restart_manager(number)

    return roll_out


async def kill_worker(cluster: Cluster) -> Repair:
    """Kill a busy worker with SIGKILL."""
    number = cluster.random.choice(await _busy_workers(cluster))
    worker = cluster.workers[number]
    processes = descendants(worker.process.pid)
    worker.kill()
    cluster.killed.add(worker.name)

    async def over() -> bool:
        return not any(is_running(pid) for pid in processes)

    await eventually("the processes of a killed worker end", over)

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
    await stop(cluster, worker)

    async def repair() -> None:
        await end_of(cluster, worker)
        if cluster.workers[number] is worker:
            cluster.replace_worker(number)

    return repair


async def stop(cluster: Cluster, worker: WorkerProcess) -> None:
    """Send SIGTERM to a worker, after it has started."""

    async def has_started() -> bool:
        return worker.has_started or not worker.is_alive

    await eventually("a worker starts", has_started)
    cluster.drained.add(worker.name)
    worker.process.send_signal(signal.SIGTERM)


async def end_of(cluster: Cluster, worker: WorkerProcess) -> None:
    """Wait until a worker that was told to stop has ended, with the exit code 0 unless it was killed meanwhile."""

    async def ended() -> bool:
        return not worker.is_alive

    await eventually("a worker ends after SIGTERM", ended)
    if worker.process.returncode != 0 and worker.name not in cluster.killed:
        raise UnsettledError(f"{worker.name} ended with exit code {worker.process.returncode} after SIGTERM")


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
