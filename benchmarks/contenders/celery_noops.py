# pyright: basic, reportMissingImports=false
# Its package is in the group bench alone, which the gate does not install.
"""Celery on Redis: its pool of one process, and the prefetching that its guide recommends for short tasks."""

from collections.abc import Callable
from typing import Self

from celery import Celery

FETCHED_AHEAD = 128


class Contender:
    """Messages for one task."""

    def __init__(self, address: str) -> None:
        self._app = Celery("noops", broker=address)
        self._app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=FETCHED_AHEAD)
        self._note: Callable[[], None] = lambda: None

        @self._app.task(name="noop")
        def noop() -> None:
            self._note()

        self._noop = noop

    async def __aenter__(self) -> Self:
        """Nothing has to be set up."""
        return self

    async def __aexit__(self, *error: object) -> None:
        """Disconnect."""
        self._app.close()

    async def fill(self, count: int) -> None:
        """Create them one by one, on one connection: it has no batches."""
        with self._app.producer_pool.acquire(block=True) as producer:
            for _ in range(count):
                self._noop.apply_async(producer=producer)

    async def put(self) -> None:
        """Create one."""
        self._noop.delay()

    def work(self, note: Callable[[], None]) -> None:
        """Run in this single process."""
        self._note = note
        self._app.worker_main(["--quiet", "worker", "--pool=solo", "--loglevel=WARNING"])
