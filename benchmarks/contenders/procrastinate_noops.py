# pyright: basic, reportMissingImports=false
# Its package is only in the dependency group `bench`, which `make check` does not install.
"""Procrastinate, with the concurrency from its guide to asynchronous workers."""

import asyncio
from collections.abc import Callable
from typing import Self

from procrastinate import App, PsycopgConnector

CONCURRENCY = 30
BATCH = 1_000


class Contender:
    """Jobs of one task."""

    def __init__(self, address: str) -> None:
        self._app = App(connector=PsycopgConnector(conninfo=address))
        self._note: Callable[[], None] = lambda: None

        @self._app.task(name="noop")
        async def noop() -> None:
            self._note()

        self._noop = noop

    async def __aenter__(self) -> Self:
        """Create the tables."""
        await self._app.open_async()
        await self._app.schema_manager.apply_schema_async()
        return self

    async def __aexit__(self, *error: object) -> None:
        """Disconnect."""
        await self._app.close_async()

    async def fill(self, count: int) -> None:
        """Create the tasks in batches."""
        for start in range(0, count, BATCH):
            await self._noop.batch_defer_async(*[{}] * min(BATCH, count - start))

    async def put(self) -> None:
        """Create one task."""
        await self._noop.defer_async()

    def work(self, note: Callable[[], None]) -> None:
        """Run on asyncio's default loop, as its command does."""
        self._note = note
        asyncio.run(self._work())

    async def _work(self) -> None:
        async with self._app.open_async():
            await self._app.run_worker_async(concurrency=CONCURRENCY)
