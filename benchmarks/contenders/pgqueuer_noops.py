# pyright: basic, reportMissingImports=false
# Its package is only in the dependency group `bench`, which `make check` does not install.
"""PgQueuer as in its performance guide: a pool for producers, one connection for the worker, durable tables."""

import asyncio
from collections.abc import Callable
from typing import Self

import asyncpg
import uvloop
from pgqueuer import AsyncpgPoolDriver, Job, PgQueuer, Queries

BATCH = 1_000
PARALLEL = 4


class Contender:
    """Jobs of one entrypoint."""

    def __init__(self, address: str, batch: int) -> None:
        self._address = address
        self._batch = batch

    async def __aenter__(self) -> Self:
        """Create the tables with the settings that the guide recommends."""
        self._pool = await asyncpg.create_pool(self._address, min_size=PARALLEL, max_size=PARALLEL)
        self._queries = Queries(AsyncpgPoolDriver(self._pool))
        await self._queries.install()
        await self._queries.optimize_autovacuum()
        return self

    async def __aexit__(self, *error: object) -> None:
        """Disconnect."""
        await self._pool.close()

    async def fill(self, count: int) -> None:
        """Create the tasks in parallel batches."""
        batches = iter([min(BATCH, count - start) for start in range(0, count, BATCH)])

        async def create() -> None:
            for size in batches:
                await self._queries.enqueue(["noop"] * size, [None] * size, [0] * size)

        await asyncio.gather(*(create() for _ in range(PARALLEL)))

    async def put(self) -> None:
        """Create one task."""
        await self._queries.enqueue("noop", None)

    def work(self, note: Callable[[], None]) -> None:
        """Run on uvloop, as `pgq run` does."""
        uvloop.run(self._work(note))

    async def _work(self, note: Callable[[], None]) -> None:
        worker = PgQueuer.from_asyncpg_connection(await asyncpg.connect(self._address))

        @worker.entrypoint("noop")
        async def noop(_job: Job) -> None:
            note()

        await worker.run(batch_size=self._batch)
