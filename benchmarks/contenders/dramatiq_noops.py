# pyright: basic, reportMissingImports=false
# Its package is only in the dependency group `bench`, which `make check` does not install.
"""Dramatiq on Redis, with the default number of threads of its command."""

import threading
from collections.abc import Callable
from typing import Self

import dramatiq
from dramatiq.brokers.redis import RedisBroker

THREADS = 8


class Contender:
    """Messages for one actor."""

    def __init__(self, address: str) -> None:
        self._broker = RedisBroker(url=address)
        self._note: Callable[[], None] = lambda: None

        @dramatiq.actor(actor_name="noop", broker=self._broker)
        def noop() -> None:
            self._note()

        self._noop = noop

    async def __aenter__(self) -> Self:
        """Nothing has to be set up."""
        return self

    async def __aexit__(self, *error: object) -> None:
        """Disconnect."""
        self._broker.close()

    async def fill(self, count: int) -> None:
        """Create the tasks one by one, because Dramatiq has no batch API."""
        for _ in range(count):
            self._noop.send()

    async def put(self) -> None:
        """Create one task."""
        self._noop.send()

    def work(self, note: Callable[[], None]) -> None:
        """Run the worker as one process of its command does."""
        self._note = note
        dramatiq.Worker(self._broker, worker_threads=THREADS).start()
        threading.Event().wait()
