"""Run a soak: measure what two managers can carry, then give them half of it for a long time.

Run by ``make bench PART=soak MINUTES=60``. Both managers share one PostgreSQL with durable settings. The load creates
jobs of several shapes; see `benchmarks.soak.load`. Jobs are deleted after a while, so the tables reach their final size
in the first minutes. The table at the end compares the first ten minutes after that with the last ten. Memory,
connections, dead rows, and bytes of the write-ahead log per task must not grow. Durations depend on what else the
machine does.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import asyncpg
import uvloop
from reference_manager.embedded import EmbeddedPostgres
from rich.console import Console

from benchmarks.soak import report
from benchmarks.soak.load import Load
from benchmarks.soak.samples import Sample, Sampler
from tools.data_folder import temporary_data_folder
from tools.manager import ManagerProcess

MANAGERS = 2
SHARE = 0.5
"""The share of their capacity that the managers get."""
DRAIN_TIMEOUT = 120.0
"""Seconds within which all tasks must end after the last one was created."""
OUTPUT = Path(".tools/soak")

console = Console(highlight=False)


@dataclass(frozen=True)
class Plan:
    """The phases of a soak, in seconds."""

    seconds: float
    """How long samples are taken."""
    settling: float = 150.0
    """How long the load runs before that. Longer than `keep`, so that the tables have reached their size."""
    measuring: float = 20.0
    """How long the capacity is measured, after a quarter of this time."""
    interval: float = 10.0
    """Between two samples."""
    keep: float = 60.0
    """Between the creation of a job and its deletion."""
    backlog: int = 2_000
    """The number of tasks that wait while the capacity is measured."""
    output: Path = field(default=OUTPUT)
    """The folder for the results."""


async def soak(database_url: str, urls: Sequence[str], processes: Sequence[int], plan: Plan) -> None:
    """Run a soak on running managers, and write its results.

    Raises:
        RuntimeError: A manager refused a request, or tasks did not end.
    """
    plan.output.mkdir(parents=True, exist_ok=True)
    file = plan.output / report.SAMPLES
    file.unlink(missing_ok=True)
    load = Load(urls, plan.keep)
    connection = await asyncpg.connect(database_url)
    try:
        await load.start_workers()
        capacity = await _capacity(load, plan)
        rate = capacity * SHARE
        console.print(f"The managers carry {capacity:,.0f} tasks/s. The load is {rate:,.0f} tasks/s.")
        producer = asyncio.create_task(load.produce(plan.settling + plan.seconds, rate))
        await _pause(load, producer, plan.settling)
        sampler = await Sampler(connection, processes, load, file).start()
        start = time.monotonic()
        for number in range(1, round(plan.seconds / plan.interval) + 1):
            await _pause(load, producer, max(start + number * plan.interval - time.monotonic(), 0))
            _show(await sampler.take(), plan)
        await producer
        await _drain(load)
        await load.stop()
    finally:
        await connection.close()


async def _capacity(load: Load, plan: Plan) -> float:
    """Return how many tasks per second end while as many are created."""
    await load.produce(plan.measuring / 4, rate=None, limit=plan.backlog)
    before, start = load.outstanding - load.events["tasks created"], time.monotonic()
    await load.produce(plan.measuring, rate=None, limit=plan.backlog)
    rate = (before - load.outstanding + load.events["tasks created"]) / (time.monotonic() - start)
    await _drain(load)
    return rate


async def _pause(load: Load, producer: asyncio.Task[None], seconds: float) -> None:
    await asyncio.wait([producer], timeout=seconds)
    load.check()
    if producer.done():
        producer.result()


async def _drain(load: Load) -> None:
    deadline = time.monotonic() + DRAIN_TIMEOUT
    while load.outstanding:
        load.check()
        if time.monotonic() > deadline:
            raise RuntimeError(f"{load.outstanding} tasks have not ended")
        await asyncio.sleep(0.1)


def _show(sample: Sample, plan: Plan) -> None:
    """Print a line about a sample."""
    left = timedelta(seconds=round(plan.seconds - sample.minutes * 60))
    console.print(
        f"{left} left: {sample.rate:,.0f} tasks/s, {sample.outstanding:,} outstanding, memory "
        f"{' and '.join(f'{memory:.0f}' for memory in sample.memory)} MB, {sample.connections} connections, "
        f"{sum(sample.dead.values()):,} dead rows, {sum(sample.sizes.values()):,.0f} MB, "
        f"{sample.wal_per_task:,.0f} B of log per task, "
        + ", ".join(f"{kind} {median:.1f} · {slow:.1f} ms" for kind, (median, slow) in sample.milliseconds.items()),
        soft_wrap=True,
    )


def main(minutes: float = 60.0, output: Path = OUTPUT) -> None:
    """Run a soak on a temporary PostgreSQL, and print the table."""
    plan = Plan(minutes * 60, output=output)
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_data_folder())
        server = stack.enter_context(EmbeddedPostgres(folder))
        managers = [stack.enter_context(ManagerProcess("--database-url", server.url)) for _ in range(MANAGERS)]
        urls, processes = [manager.url for manager in managers], [manager.process.pid for manager in managers]
        uvloop.run(soak(server.url, urls, processes, plan))
    console.print(report.write(output), soft_wrap=True, markup=False)
    console.print(f"Samples, table and charts: {output}")
