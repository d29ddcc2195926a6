"""Claim, report, pickup: one direct connection as the base, then HTTP, with small and large backlogs, several managers.

Run by ``make bench``. Figures are tasks/s, each task claimed and completed. What counts are the ratios, since they are
taken in one run on one PostgreSQL with its durable settings. Each figure is the best of some rounds: noise only slows.
"""

import subprocess
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from datetime import timedelta

import uvloop
from reference_manager.embedded import EmbeddedPostgres
from reference_manager.store.pool import Database
from rich.console import Console
from rich.table import Table

from benchmarks.measures import Bench
from tools.data_folder import temporary_data_folder
from tools.manager import ManagerProcess

SMALL, LARGE = 10_000, 1_000_000
ROUNDS = 3
DIRECT_TASKS, SINGLE_TASKS, BATCHED_TASKS = 2_000, 8_000, 30_000
SINGLE_CONNECTIONS, BATCHED_CONNECTIONS = 32, 4
CROWD, BATCHED_CROWD = 48, 12
PICKUPS = 300
MEMORY_TASKS = 1_000_000

console = Console()


class Report:
    """Prints figures as they come, as multiples of the first."""

    def __init__(self) -> None:
        self._figures: dict[tuple[str, str], float] = {}
        self._base = 0.0

    async def best(self, what: str, around: str, run: Callable[[], Awaitable[float]]) -> None:
        """Measure a rate, in tasks/s."""
        with console.status(f"{what}, {around}"):
            rate = max([await run() for _ in range(ROUNDS)])
        self._base = self._base or rate
        self._figures[what, around] = rate

    def show(self, small: str) -> None:
        """The table: each figure against the base, and against the same with a small backlog."""
        table = Table("what", "with", "tasks/s", "times the base", f"of {small}", title="Claim and complete")
        for (what, around), rate in self._figures.items():
            flat = rate / self._figures.get((what, small), rate)
            table.add_row(what, around, f"{rate:,.0f}", f"{rate / self._base:.1f}", f"{flat:.2f}")
        console.print(table)


async def throughput(bench: Bench, crowd: Bench) -> None:
    """All rates."""
    report = Report()
    small = f"{SMALL:,} waiting"
    spare = ROUNDS * (DIRECT_TASKS + 3 * SINGLE_TASKS + 3 * BATCHED_TASKS)
    for around, waiting, finished in (
        (small, SMALL, 0),
        (f"{LARGE:,} waiting", LARGE, 0),
        (f"{LARGE:,} finished", SMALL, LARGE),
    ):
        kind = around.replace(",", "").replace(" ", "-")
        with console.status(f"filling {around}"):
            await bench.fill(kind, waiting + spare, finished)
        await report.best("direct, one connection", around, lambda: bench.direct(kind, DIRECT_TASKS))  # noqa: B023 - at once
        await report.best(
            f"HTTP one by one, {SINGLE_CONNECTIONS} connections",
            around,
            lambda: bench.one_by_one(kind, SINGLE_TASKS, SINGLE_CONNECTIONS),  # noqa: B023 - at once
        )
        await report.best(
            f"HTTP by the hundred, {BATCHED_CONNECTIONS} connections",
            around,
            lambda: bench.by_the_hundred(kind, BATCHED_TASKS, BATCHED_CONNECTIONS),  # noqa: B023 - at once
        )
        if around == small:
            for who, several in (("one manager", bench), ("three managers", crowd)):
                await report.best(
                    f"HTTP one by one, {CROWD} connections, {who}",
                    around,
                    lambda: several.one_by_one(kind, SINGLE_TASKS, CROWD),  # noqa: B023 - at once
                )
                await report.best(
                    f"HTTP by the hundred, {BATCHED_CROWD} connections, {who}",
                    around,
                    lambda: several.by_the_hundred(kind, BATCHED_TASKS, BATCHED_CROWD),  # noqa: B023 - at once
                )
    report.show(small)


async def pickup(bench: Bench) -> None:
    """Measure how long it takes until a waiting worker receives a new task, compared with the simplest request."""
    with console.status("pickup"):
        liveness = await bench.liveness(PICKUPS)
        since_asked, since_answered = await bench.pickup("pickup", PICKUPS)
    console.print(f"GET /liveness p50 {liveness * 1000:.2f} ms")
    for since, seconds in (("asked for", since_asked), ("answered", since_answered)):
        median, slow = seconds[len(seconds) // 2], seconds[len(seconds) * 99 // 100]
        console.print(
            f"Pickup, since the creation was {since}: p50 {median * 1000:.1f} ms, p99 {slow * 1000:.1f} ms: "
            f"{median / liveness:.1f} and {slow / liveness:.1f} times that"
        )


async def memory(bench: Bench, process_id: int) -> None:
    """Measure a manager's memory after many tasks, compared with its memory after a tenth of them."""
    with console.status(f"filling {MEMORY_TASKS:,}"):
        await bench.fill("memory", MEMORY_TASKS)
    held: list[float] = []
    with console.status(f"working off {MEMORY_TASKS:,} tasks"):
        for _ in range(10):
            await bench.by_the_hundred("memory", MEMORY_TASKS // 10, BATCHED_CONNECTIONS)
            held.append(_resident(process_id))
    few, many = f"{MEMORY_TASKS // 10:,}", f"{MEMORY_TASKS:,}"
    console.print(f"Memory of a manager after {few} tasks {held[0]:.0f} MB, after {many} {held[-1]:.0f} MB")


def _resident(process_id: int) -> float:
    """Megabytes (10^6 bytes) of a process in memory."""
    kibibytes = subprocess.run(["ps", "-o", "rss=", "-p", str(process_id)], capture_output=True, check=True).stdout
    return int(kibibytes) * 1024 / 1e6


async def run(database_url: str, managers: list[ManagerProcess]) -> None:
    """Measure against running managers."""
    async with Database.connect(database_url, connections=2, acquire_timeout=timedelta(seconds=5)) as database:
        urls = [manager.url for manager in managers]
        bench, crowd = Bench(database, urls[:1]), Bench(database, urls)
        await throughput(bench, crowd)
        await pickup(bench)
        await memory(bench, managers[0].process.pid)


def main() -> None:
    """Measure and print."""
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_data_folder())
        server = stack.enter_context(EmbeddedPostgres(folder))
        managers = [stack.enter_context(ManagerProcess("--database-url", server.url)) for _ in range(3)]
        uvloop.run(run(server.url, managers))


if __name__ == "__main__":
    main()
