"""Claim and settle: one direct connection as the base, HTTP with many connections, small and large backlogs.

Run by ``make bench``. Every figure is tasks/s, each task claimed and completed; the ratios are what counts, since they
are taken in one run on one PostgreSQL with its durable settings.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

import uvloop
from reference_manager.embedded import EmbeddedPostgres
from reference_manager.store.database import Database, sql
from rich.console import Console
from rich.table import Table

from tools.backlog import add_backlog
from tools.data_folder import temporary_data_folder
from tools.manager import ManagerProcess
from tools.wire import Wire

CONNECTIONS = 32
SMALL, LARGE = 10_000, 1_000_000
DIRECT_TASKS, HTTP_TASKS = 2_000, 8_000
ROUNDS = 3
STALE_AFTER = timedelta(minutes=30)

console = Console()


@dataclass
class Bench:
    """One PostgreSQL and one manager on it."""

    database: Database
    url: str

    async def fill(self, stage_type: str, count: int) -> None:
        """A job with this many waiting tasks of the type, and statistics as autovacuum would soon have them."""
        await add_backlog(self.database, stage_type, count)
        async with self.database.connection() as connection:
            await connection.execute("VACUUM ANALYZE")
            await connection.execute("CHECKPOINT")

    async def direct(self, stage_type: str, count: int) -> float:
        """Tasks/s of the two statements, one task at a time, on one connection."""
        async with self.database.connection() as connection:
            start = time.perf_counter()
            for _ in range(count):
                (claimed,) = await connection.fetch(sql.task_claim.sql, stage_type, 1, [1], [None], [STALE_AFTER])
                await connection.fetch(sql.task_complete.sql, [claimed["task"]], [None], [None], [None])
            return count / (time.perf_counter() - start)

    async def over_http(self, stage_type: str, count: int) -> float:
        """Tasks/s over HTTP, one task a request."""
        wires = [await Wire.open(self.url) for _ in range(CONNECTIONS)]
        left = count

        async def work(wire: Wire) -> None:
            nonlocal left
            while left > 0:
                left -= 1
                if task_id := await wire.claim(stage_type):
                    await wire.complete(task_id)

        start = time.perf_counter()
        await asyncio.gather(*(work(wire) for wire in wires))
        elapsed = time.perf_counter() - start
        for wire in wires:
            wire.close()
        return count / elapsed


async def measure(bench: Bench) -> list[tuple[str, int, float]]:
    """Label, backlog and tasks/s of each measurement; the best of some rounds, since noise only slows."""
    rows: list[tuple[str, int, float]] = []

    async def best(label: str, backlog: int, run: Callable[[], Awaitable[float]]) -> None:
        rows.append((label, backlog, max([await run() for _ in range(ROUNDS)])))

    for backlog, stage_type in ((SMALL, "small"), (LARGE, "large")):
        with console.status(f"filling {backlog:,} tasks"):
            await bench.fill(stage_type, backlog + ROUNDS * (DIRECT_TASKS + HTTP_TASKS))
        with console.status(f"measuring with {backlog:,} waiting"):
            await best("direct, one connection", backlog, lambda: bench.direct(stage_type, DIRECT_TASKS))  # noqa: B023 - called at once
            await best(f"HTTP, {CONNECTIONS} connections", backlog, lambda: bench.over_http(stage_type, HTTP_TASKS))  # noqa: B023 - called at once
    return rows


async def run(database_url: str, url: str) -> list[tuple[str, int, float]]:
    """Measure against a running manager."""
    async with Database.connect(database_url, connections=2, patience=timedelta(seconds=5)) as database:
        return await measure(Bench(database, url))


def main() -> None:
    """Measure and print."""
    with (
        temporary_data_folder() as folder,
        EmbeddedPostgres(folder) as server,
        ManagerProcess("--database-url", server.url) as manager,
    ):
        rows = uvloop.run(run(server.url, manager.url))
    table = Table("what", "waiting", "tasks/s", "times the base", title="Claim and complete, one task at a time")
    base = rows[0][2]
    for label, backlog, rate in rows:
        table.add_row(label, f"{backlog:,}", f"{rate:,.0f}", f"{rate / base:.2f}")
    console.print(table)
    flat = rows[3][2] / rows[1][2]
    console.print(f"HTTP at {LARGE:,} waiting is {flat:.2f} of HTTP at {SMALL:,}")


if __name__ == "__main__":
    main()
