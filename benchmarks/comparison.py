"""Compare Jobnik with other queues end to end, with one worker process each.

Run by ``make bench``. Each contender creates empty tasks, processes them, picks up single tasks and idles. All of it
runs on this machine with durable settings and the log level WARNING. Compare only ratios within one run. The contenders
take turns, so that a change of the machine's speed affects all of them, and each rate is the median of their rounds.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from statistics import median

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
from tools.proxy import Proxy, RequestFault

ROUNDS, MAIN_ROUNDS = 3, 5
"""The number of rounds of each contender; of Jobnik and the base, whose ratio counts most, there are more."""
PICKUPS = 200
IDLE_BETWEEN = 0.02
"""Seconds before each pickup, so that the worker has reported the previous task and waits."""
SETTLING, MINUTE = 5.0, 60.0
"""Seconds."""
ENGINE_TASKS, ENGINE_CONNECTIONS = 30_000, 4

console = Console()


@dataclass
class Figures:
    """The measurements of one contender."""

    rates: list[float] = field(default_factory=list[float])
    """Tasks/s, from the start of the first task to the start of the last, of each round."""
    creation_rates: list[float] = field(default_factory=list[float])
    """Tasks/s of each round."""
    starts: list[float] = field(default_factory=list[float])
    """Seconds from the start of the process to the start of its first task, of each round."""
    pickups: Sequence[float] = ()
    """Seconds from just before the creation request to the start of the handler, of all rounds, sorted."""
    memory: float = 0.0
    """Memory of an idle worker, in megabytes."""
    idle_seconds: float = 0.0
    """CPU time of an idle worker per minute, in seconds."""


@dataclass
class Comparison:
    """The measurements of all contenders, taken one after the other."""

    stores: Stores
    figures: dict[str, Figures] = field(default_factory=lambda: {name: Figures() for name in ENTRIES})
    engine_rate: float = 0.0
    """Tasks/s of claims and reports alone."""
    requests: int = 0
    """Requests per minute of an idle Jobnik worker."""

    async def drain(self, name: str) -> None:
        """Create tasks, then measure how fast the worker processes them."""
        entry, figures = ENTRIES[name], self.figures[name]
        async with self.stores.opened(entry.store, name) as address, entry.contender(address) as contender:
            begin = time.perf_counter()
            await contender.fill(entry.tasks)
            created = entry.tasks / (time.perf_counter() - begin)
            await self.stores.tidy(entry.store, name)
            async with WorkerProcess(name, address, every=entry.tasks) as worker:
                first = await worker.handled()
                last = await worker.handled()
        figures.creation_rates.append(created)
        figures.rates.append(entry.tasks / (last - first))
        figures.starts.append(first - worker.started)

    async def pick_up(self, name: str) -> None:
        """Measure how fast a waiting worker picks up single tasks."""
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
        self.figures[name].pickups = sorted([*self.figures[name].pickups, *seconds])

    async def idle(self, name: str) -> None:
        """Measure an idle worker that has processed one task; for Jobnik's, count its requests to the manager."""
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

    def _count_request(self, _request: str) -> RequestFault | None:
        self.requests += 1
        return None

    async def engine(self) -> None:
        """Measure the engine in batches of 100, without running handlers."""
        name = "engine"
        async with (
            self.stores.opened(Store.MANAGER, name) as address,
            Database.connect(
                self.stores.database_url(name), connections=2, acquire_timeout=timedelta(seconds=5)
            ) as database,
        ):
            bench = Bench(database, [address])
            await bench.fill("engine", ROUNDS * ENGINE_TASKS)
            rates = [await bench.in_batches("engine", ENGINE_TASKS, ENGINE_CONNECTIONS) for _ in range(ROUNDS)]
        self.engine_rate = median(rates)

    def show(self) -> None:
        """Print the table, with each rate as a multiple of the base's."""
        table = Table(
            title="One worker process, compared with other queues", box=SIMPLE_HEAD, show_edge=False, padding=0
        )
        table.add_column("queue,\nconcurrency", no_wrap=True)
        for heading in ("\ntasks/s", "\nvs base", "created\n/s", "\nvs base", "pickup\np50 ms", "\np99 ms"):
            table.add_column(heading, justify="right")
        for heading in ("start\ns", "idle\nMB", "CPU\nms/min"):
            table.add_column(heading, justify="right")
        base = self.figures[BASE]
        base_rate, base_creation_rate = median(base.rates), median(base.creation_rates)
        for name, figures in self.figures.items():
            rate, creation_rate = median(figures.rates), median(figures.creation_rates)
            slow = figures.pickups[len(figures.pickups) * 99 // 100]
            table.add_row(
                f"{ENTRIES[name].title}\n{ENTRIES[name].concurrency}",
                f"{rate:,.0f}",
                f"{rate / base_rate:.2f}",
                f"{creation_rate:,.0f}",
                f"{creation_rate / base_creation_rate:.2f}",
                f"{median(figures.pickups) * 1000:.1f}",
                f"{slow * 1000:.1f}",
                f"{median(figures.starts):.2f}",
                f"{figures.memory:.0f}",
                f"{figures.idle_seconds * 1000:.0f}",
            )
        console.print(table)
        rounds = zip(self.figures[OURS].rates, base.rates, strict=True)
        ratios = ", ".join(f"{ours / of_base:.2f}" for ours, of_base in rounds)
        console.print(
            f"Jobnik's tasks/s vs the base's, round by round: {ratios}. "
            f"The engine in batches of 100: {self.engine_rate:,.0f} tasks/s. "
            f"Jobnik's worker reaches {median(self.figures[OURS].rates) / self.engine_rate:.2f} of that. "
            f"When idle, it sends {self.requests} requests per minute."
        )


async def compare(stores: Stores) -> None:
    """Measure everything and print the results."""
    comparison = Comparison(stores)
    with console.status("the engine in batches of 100"):
        await comparison.engine()
    for number in range(MAIN_ROUNDS):
        for name, entry in ENTRIES.items():
            rounds = MAIN_ROUNDS if name in {OURS, BASE} else ROUNDS
            if number < rounds:
                progress = f"{entry.tasks:,} tasks, round {number + 1} of {rounds}"
                with console.status(f"{entry.title}, {entry.concurrency}: {progress}"):
                    await comparison.drain(name)
    for number in range(ROUNDS):
        for name, entry in ENTRIES.items():
            progress = f"{PICKUPS} pickups, round {number + 1} of {ROUNDS}"
            with console.status(f"{entry.title}, {entry.concurrency}: {progress}"):
                await comparison.pick_up(name)
    with console.status("all workers idle"):
        await asyncio.gather(*(comparison.idle(name) for name in ENTRIES))
    comparison.show()


def main() -> None:
    """Run the comparison on a temporary PostgreSQL."""
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_data_folder())
        server = stack.enter_context(EmbeddedPostgres(folder))
        uvloop.run(compare(Stores(server.url)))
