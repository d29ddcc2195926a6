"""Background tasks that are restarted when they end, and watched for progress."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from time import monotonic
from typing import NoReturn

import structlog

log = structlog.stdlib.get_logger(__name__)

FIRST_DELAY = timedelta(seconds=1)
MAX_DELAY = timedelta(minutes=1)
"""The delays before a task is restarted double from the first to the maximum."""
STALLED_AFTER = timedelta(minutes=10)
"""How long a task may make no progress. Waits for the database and rounds of maintenance end much earlier."""


class BackgroundTask:
    """A task that runs until it is cancelled.

    Args:
        name: The name in logs and messages.
        run: The task. It calls its argument whenever it makes progress, at least once a minute.
    """

    def __init__(self, name: str, run: Callable[[Callable[[], None]], Awaitable[None]]) -> None:
        self.name = name
        self._run = run
        self._progressed_at = monotonic()
        self._delay = FIRST_DELAY

    @property
    def since_progress(self) -> timedelta:
        """The time since the task made progress."""
        return timedelta(seconds=monotonic() - self._progressed_at)

    async def supervise(self) -> NoReturn:
        """Run the task, and run it again whenever it ends."""
        self._progressed_at = monotonic()
        while True:
            try:
                await self._run(self._progress)
            except Exception:  # the manager needs the task, so every error restarts it
                log.exception("background task failed; restarting", task=self.name)
            else:
                log.error("background task ended; restarting", task=self.name)
            delay, self._delay = self._delay, min(2 * self._delay, MAX_DELAY)
            await asyncio.sleep(delay.total_seconds())

    def _progress(self) -> None:
        self._progressed_at = monotonic()
        self._delay = FIRST_DELAY


def stalled(tasks: Iterable[BackgroundTask]) -> list[str]:
    """Return the names of the tasks that have made no progress for ``STALLED_AFTER``."""
    return [task.name for task in tasks if task.since_progress > STALLED_AFTER]
