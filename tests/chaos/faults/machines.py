"""Faults of the machines that workers run on: outputs that accept no log lines, and clocks that jump."""

import asyncio
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from datetime import timedelta

from tests.chaos.cluster import LEASE, SDK_WORKER, STAGE_TYPES, Cluster, eventually, sql
from tests.chaos.faults.processes import end_of, stop
from tests.chaos.faults.repairs import Repair, in_background
from tests.chaos.load import create_probes
from tests.chaos.sdk_worker import HOLDING
from tests.support.outputs import Output, broken_output

HOLD_TIME = 4.0
"""Seconds for which handlers hold Python's lock: longer than a lease, and than most faults."""
OFFSETS = (timedelta(hours=5), timedelta(hours=-7), timedelta(hours=3), timedelta())
"""What the clocks show, compared with the time: one after the other, for a lease each."""


async def fill_disk(cluster: Cluster) -> Repair | None:
    """Replace a worker with one whose logs are on a full disk, and later stop that one."""
    return await _break_output(cluster, Output.FULL_DISK)


async def close_log(cluster: Cluster) -> Repair | None:
    """Replace a worker with one whose logs go to a closed pipe, and later stop that one."""
    return await _break_output(cluster, Output.CLOSED_PIPE)


async def block_log(cluster: Cluster) -> Repair | None:
    """Replace a worker with one whose logs go to a pipe that nobody reads, and later stop that one."""
    return await _break_output(cluster, Output.UNREAD_PIPE)


async def jump_clocks(cluster: Cluster) -> Repair:
    """Set workers' clocks hours ahead and back while handlers of all styles run C code that holds Python's lock."""

    async def jump() -> None:
        with _gil_held(cluster):
            for offset in OFFSETS:
                cluster.set_clocks(offset)
                await asyncio.sleep(LEASE.total_seconds())

    return in_background(jump())


async def hold_gil(cluster: Cluster) -> Repair:
    """Let handlers of all styles run C code that holds Python's lock, while other faults happen."""

    async def hold() -> None:
        with _gil_held(cluster):
            await asyncio.sleep(HOLD_TIME)

    return in_background(hold())


@contextmanager
def _gil_held(cluster: Cluster) -> Generator[None]:
    holding = cluster.folder / HOLDING
    holding.touch()
    try:
        yield
    finally:
        holding.unlink(missing_ok=True)


async def _break_output(cluster: Cluster, output: Output) -> Repair | None:
    """Replace the worker with handlers of all styles, and wait until the new one has completed a task."""
    number = next(
        number
        for number, worker in enumerate(cluster.workers)
        if worker.program == SDK_WORKER and worker.stage_types == STAGE_TYPES
    )
    former = cluster.workers[number]
    if not former.is_alive or former.name in cluster.drained:
        return None  # another fault replaces it
    await stop(cluster, former)
    await end_of(cluster, former)
    stack = ExitStack()
    cluster.replace_worker(number, stack.enter_context(broken_output(output)))
    worker = cluster.workers[number]

    async def reports() -> bool:
        cluster.journal.read()
        if any(one.worker == worker.name and one.verdicts for one in cluster.journal.worker_records.values()):
            return True
        if not await cluster.ask(sql.waiting_jobs):
            await create_probes(cluster)
        return False

    if not cluster.disturbed:
        await eventually("a worker without output reports", reports)

    async def repair() -> None:
        await stop(cluster, worker)
        await end_of(cluster, worker)
        stack.close()
        if cluster.workers[number] is worker:
            cluster.replace_worker(number)

    return repair
