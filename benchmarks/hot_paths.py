"""Measure claims, reports and pickups: on a direct connection as the base, then over HTTP.

Run by ``make bench``. The HTTP measurements vary the backlog and the number of managers. Rates are in tasks/s, where
each task is claimed and completed. Compare only ratios within one run, which uses one PostgreSQL with durable settings.
Each rate is the best of several rounds, because noise can only slow a round down.
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
MANY_CONNECTIONS, MANY_BATCHED_CONNECTIONS = 48, 12
PICKUPS = 300
MEMORY_TASKS = 1_000_000

console = Console()


class Report:
    """Collects rates and prints them as multiples of the first one, the base."""

    def __init__(self) -> None:
        self._figures: dict[tuple[str, str], float] = {}
        self._base = 0.0

    async def best(self, measurement: str, queue: str, run: Callable[[], Awaitable[float]]) -> None:
        """Measure a rate in tasks/s, as the best of several rounds."""
        with console.status(f"{measurement}, {queue}"):
            rate = max([await run() for _ in range(ROUNDS)])
        self._base = self._base or rate
        self._figures[measurement, queue] = rate

    def show(self, small: str) -> None:
        """Print each rate relative to the base, and to the same measurement with a small backlog."""
        table = Table("measurement", "queue", "tasks/s", "vs base", f"vs {small}", title="Claim and complete")
        for (measurement, queue), rate in self._figures.items():
            flat = rate / self._figures.get((measurement, small), rate)
            table.add_row(measurement, queue, f"{rate:,.0f}", f"{rate / self._base:.1f}", f"{flat:.2f}")
        console.print(table)


async def throughput(single: Bench, cluster: Bench) -> None:
    """Measure and print all rates."""
    report = Report()
    small = f"{SMALL:,} waiting"
    spare = ROUNDS * (DIRECT_TASKS + 3 * SINGLE_TASKS + 3 * BATCHED_TASKS)
    for queue, waiting, finished in (
        (small, SMALL, 0),
        (f"{LARGE:,} waiting", LARGE, 0),
        (f"{LARGE:,} finished", SMALL, LARGE),
    ):
        stage_type = queue.replace(",", "").replace(" ", "-")
        with console.status(f"creating a queue with {queue}"):
            await single.fill(stage_type, waiting + spare, finished)
        await report.best("direct, one connection", queue, lambda: single.direct(stage_type, DIRECT_TASKS))  # noqa: B023 - runs at once
        await report.best(
            f"HTTP, one by one, {SINGLE_CONNECTIONS} connections",
            queue,
            lambda: single.one_by_one(stage_type, SINGLE_TASKS, SINGLE_CONNECTIONS),  # noqa: B023 - runs at once
        )
        await report.best(
            f"HTTP, batches of 100, {BATCHED_CONNECTIONS} connections",
            queue,
            lambda: single.in_batches(stage_type, BATCHED_TASKS, BATCHED_CONNECTIONS),  # noqa: B023 - runs at once
        )
        if queue == small:
            for managers, target in (("one manager", single), ("three managers", cluster)):
                await report.best(
                    f"HTTP, one by one, {MANY_CONNECTIONS} connections, {managers}",
                    queue,
                    lambda: target.one_by_one(stage_type, SINGLE_TASKS, MANY_CONNECTIONS),  # noqa: B023 - runs at once
                )
                await report.best(
                    f"HTTP, batches of 100, {MANY_BATCHED_CONNECTIONS} connections, {managers}",
                    queue,
                    lambda: target.in_batches(stage_type, BATCHED_TASKS, MANY_BATCHED_CONNECTIONS),  # noqa: B023 - runs at once
                )
    report.show(small)


async def pickup(bench: Bench) -> None:
    """Measure how soon a waiting worker receives a new task, relative to the simplest request."""
    with console.status("pickup"):
        liveness = await bench.liveness(PICKUPS)
        since_request, since_response = await bench.pickup("pickup", PICKUPS)
    console.print(f"GET /liveness p50 {liveness * 1000:.2f} ms")
    for since, seconds in (("request", since_request), ("response", since_response)):
        median, slow = seconds[len(seconds) // 2], seconds[len(seconds) * 99 // 100]
        console.print(
            f"Pickup after the creation {since}: p50 {median * 1000:.1f} ms, p99 {slow * 1000:.1f} ms, "
            f"which is {median / liveness:.1f} and {slow / liveness:.1f} times GET /liveness"
        )


async def memory(bench: Bench, process_id: int) -> None:
    """Measure the memory of a manager after all tasks, and after a tenth of them."""
    with console.status(f"creating {MEMORY_TASKS:,} tasks"):
        await bench.fill("memory", MEMORY_TASKS)
    held: list[float] = []
    with console.status(f"processing {MEMORY_TASKS:,} tasks"):
        for _ in range(10):
            await bench.in_batches("memory", MEMORY_TASKS // 10, BATCHED_CONNECTIONS)
            held.append(_resident(process_id))
    few, many = f"{MEMORY_TASKS // 10:,}", f"{MEMORY_TASKS:,}"
    console.print(f"Memory of a manager: {held[0]:.0f} MB after {few} tasks, {held[-1]:.0f} MB after {many} tasks")


def _resident(process_id: int) -> float:
    """Return the resident memory of a process, in megabytes (10^6 bytes)."""
    kibibytes = subprocess.run(["ps", "-o", "rss=", "-p", str(process_id)], capture_output=True, check=True).stdout
    return int(kibibytes) * 1024 / 1e6


async def run(database_url: str, managers: list[ManagerProcess]) -> None:
    """Run all measurements on running managers."""
    async with Database.connect(database_url, connections=2, acquire_timeout=timedelta(seconds=5)) as database:
        urls = [manager.url for manager in managers]
        single, cluster = Bench(database, urls[:1]), Bench(database, urls)
        await throughput(single, cluster)
        await pickup(single)
        await memory(single, managers[0].process.pid)


def main() -> None:
    """Run the measurements on a temporary PostgreSQL with three managers."""
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_data_folder())
        server = stack.enter_context(EmbeddedPostgres(folder))
        managers = [stack.enter_context(ManagerProcess("--database-url", server.url)) for _ in range(3)]
        uvloop.run(run(server.url, managers))


if __name__ == "__main__":
    main()
