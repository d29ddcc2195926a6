"""A worker end to end, compared with the alternatives: Jobnik and other queues, one worker process each.

Run by ``make bench``. Each contender creates tasks that do nothing, works them off, picks up single ones and idles, all
on this machine, with durable settings, with log lines from WARNING on. What counts are the ratios of one run. Each rate
is the best of some rounds: noise only slows.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from datetime import timedelta

import uvloop
from reference_manager.embedded import EmbeddedPostgres
from reference_manager.store.pool import Database
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.contenders import BASE, ENTRIES, OURS, Store
from benchmarks.measures import Bench
from benchmarks.stores import Stores
from benchmarks.worker_process import WorkerProcess
from tools.data_folder import temporary_data_folder
from tools.manager import ManagerProcess
from tools.proxy import Mischief, Proxy

ROUNDS = 3
PICKUPS = 200
IDLE_BETWEEN = 0.02
"""Seconds before each pickup: the worker has reported the task before, and waits."""
SETTLING, MINUTE = 5.0, 60.0
"""Seconds."""
ENGINE_TASKS, ENGINE_CONNECTIONS = 30_000, 4

console = Console()


@dataclass
class Figures:
    """The measurements of one contender."""

    rate: float = 0.0
    """Tasks/s, from the first task's start to the last one's."""
    creation_rate: float = 0.0
    """Tasks/s."""
    start: float = float("inf")
    """Seconds from the start of the process to that of its first task."""
    pickups: Sequence[float] = ()
    """Seconds from before the creation to the handler's start, sorted."""
    memory: float = 0.0
    """Megabytes of an idle worker."""
    idle_seconds: float = 0.0
    """Processor time of an idle worker in a minute."""


@dataclass
class Comparison:
    """All contenders, measured one after the other."""

    stores: Stores
    figures: dict[str, Figures] = field(default_factory=lambda: {name: Figures() for name in ENTRIES})
    engine_rate: float = 0.0
    """Tasks/s of claims and reports, without a worker."""
    requests: int = 0
    """Requests per minute of Jobnik's idle worker."""

    async def drain(self, name: str) -> None:
        """Create tasks, and let a worker process all of them, once."""
        entry, figures = ENTRIES[name], self.figures[name]
        async with self.stores.opened(entry.store, name) as address, entry.contender(address) as contender:
            begin = time.perf_counter()
            await contender.fill(entry.tasks)
            created = entry.tasks / (time.perf_counter() - begin)
            await self.stores.tidy(entry.store, address)
            async with WorkerProcess(name, address, every=entry.tasks) as worker:
                first = await worker.handled()
                last = await worker.handled()
        figures.creation_rate = max(figures.creation_rate, created)
        figures.rate = max(figures.rate, entry.tasks / (last - first))
        figures.start = min(figures.start, first - worker.started)

    async def pick_up(self, name: str) -> None:
        """Create tasks one after another for a worker that waits."""
        entry = ENTRIES[name]
        seconds: list[float] = []
        async with (
            self.stores.opened(entry.store, name) as address,
            entry.contender(address) as contender,
            WorkerProcess(name, address, every=1) as worker,
        ):
            await contender.put()
            await worker.handled()
            for _ in range(PICKUPS):
                await asyncio.sleep(IDLE_BETWEEN)
                asked = time.monotonic()
                await contender.put()
                seconds.append(await worker.handled() - asked)
        self.figures[name].pickups = sorted(seconds)

    async def idle(self, name: str) -> None:
        """Let a worker wait after its first task; for Jobnik's, also count its requests to the manager."""
        entry, figures = ENTRIES[name], self.figures[name]
        async with AsyncExitStack() as stack:
            address = await stack.enter_async_context(self.stores.opened(entry.store, name))
            contender = await stack.enter_async_context(entry.contender(address))
            if entry.store is Store.MANAGER:
                proxy = stack.enter_context(Proxy(address))
                proxy.choose = self._count_request
                address = proxy.url
            worker = await stack.enter_async_context(WorkerProcess(name, address, every=1))
            await contender.put()
            await worker.handled()
            await asyncio.sleep(SETTLING)
            self.requests = 0
            _, before = worker.usage
            await asyncio.sleep(MINUTE)
            figures.memory, after = worker.usage
            figures.idle_seconds = after - before

    def _count_request(self, _request: str) -> Mischief | None:
        self.requests += 1
        return None

    async def engine(self) -> None:
        """Measure the engine by the hundred, without a worker that runs anything."""
        async with Database.connect(
            self.stores.postgres_url, connections=2, acquire_timeout=timedelta(seconds=5)
        ) as database:
            bench = Bench(database, [self.stores.manager_url])
            await bench.fill("engine", ROUNDS * ENGINE_TASKS)
            rates = [await bench.by_the_hundred("engine", ENGINE_TASKS, ENGINE_CONNECTIONS) for _ in range(ROUNDS)]
        self.engine_rate = max(rates)

    def show(self) -> None:
        """The table, with each rate as a multiple of the base's."""
        table = Table(title="One worker process, alongside other queues", box=SIMPLE_HEAD, show_edge=False, padding=0)
        table.add_column("queue,\nwhat a worker does", no_wrap=True)
        for heading in ("\ntasks/s", "\ntimes", "created\n/s", "\ntimes", "pickup\np50 ms", "\np99 ms"):
            table.add_column(heading, justify="right")
        for heading in ("start\ns", "idle\nMB", "CPU\nms/min"):
            table.add_column(heading, justify="right")
        base = self.figures[BASE]
        for name, figures in self.figures.items():
            median, slow = figures.pickups[len(figures.pickups) // 2], figures.pickups[len(figures.pickups) * 99 // 100]
            table.add_row(
                f"{ENTRIES[name].title}\n{ENTRIES[name].how}",
                f"{figures.rate:,.0f}",
                f"{figures.rate / base.rate:.2f}",
                f"{figures.creation_rate:,.0f}",
                f"{figures.creation_rate / base.creation_rate:.2f}",
                f"{median * 1000:.1f}",
                f"{slow * 1000:.1f}",
                f"{figures.start:.2f}",
                f"{figures.memory:.0f}",
                f"{figures.idle_seconds * 1000:.0f}",
            )
        console.print(table)
        console.print(
            f"The engine by the hundred: {self.engine_rate:,.0f} tasks/s; "
            f"Jobnik's worker does {self.figures[OURS].rate / self.engine_rate:.2f} of that. "
            f"Idle, it sends {self.requests} requests a minute."
        )


async def compare(stores: Stores) -> None:
    """Measure everything, and show it."""
    comparison = Comparison(stores)
    with console.status("the engine by the hundred"):
        await comparison.engine()
    for name, entry in ENTRIES.items():
        for number in range(ROUNDS):
            with console.status(f"{entry.title}, {entry.how}: {entry.tasks:,} tasks, round {number + 1} of {ROUNDS}"):
                await comparison.drain(name)
        with console.status(f"{entry.title}, {entry.how}: {PICKUPS} pickups"):
            await comparison.pick_up(name)
    with console.status("all workers idle"):
        await asyncio.gather(*(comparison.idle(name) for name in ENTRIES))
    comparison.show()


def main() -> None:
    """Measure and print."""
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_data_folder())
        server = stack.enter_context(EmbeddedPostgres(folder))
        manager = stack.enter_context(ManagerProcess("--database-url", server.url))
        uvloop.run(compare(Stores(server.url, manager.url)))
