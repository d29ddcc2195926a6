# pyright: basic, reportMissingImports=false
# Its packages are only in the dependency group `bench`, which `make check` does not install.
"""Taskiq, with the broker from its README: a Redis stream with acknowledgements."""

import asyncio
from collections.abc import Callable
from typing import Self

import uvloop
from taskiq.api import run_receiver_task
from taskiq_redis import RedisStreamBroker

CONCURRENCY = 100
PARALLEL = 20


class Contender:
    """Messages for one task."""

    def __init__(self, address: str) -> None:
        self._broker = RedisStreamBroker(address)
        self._note: Callable[[], None] = lambda: None

        @self._broker.task(task_name="noop")
        async def noop() -> None:
            self._note()

        self._noop = noop

    async def __aenter__(self) -> Self:
        """Declare the consumer group, which receives messages from then on."""
        await self._broker.startup()
        return self

    async def __aexit__(self, *error: object) -> None:
        """Disconnect."""
        await self._broker.shutdown()

    async def fill(self, count: int) -> None:
        """Create the tasks one by one, in parallel, because Taskiq has no batch API."""
        left = iter(range(count))

        async def create() -> None:
            for _ in left:
                await self._noop.kiq()

        await asyncio.gather(*(create() for _ in range(PARALLEL)))

    async def put(self) -> None:
        """Create one task."""
        await self._noop.kiq()

    def work(self, note: Callable[[], None]) -> None:
        """Run on uvloop, as its command does if uvloop is installed."""
        self._note = note
        uvloop.run(run_receiver_task(self._broker, max_async_tasks=CONCURRENCY, run_startup=True))
