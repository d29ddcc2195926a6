"""The pace of statements while several managers work on one database.

A manager sends the statements of its batchers at the same time, which is fastest if PostgreSQL has nothing else to do.
Those of several managers, however, compete for its processors: each takes longer, and each has fewer tasks than one
manager's would have, although most of its cost is the same for any number of tasks. So while other managers claim
tasks, too, a small batch waits until no other statement of this manager runs and the clients that were answered last
have sent their next requests. Then all clients of the manager claim together and report together.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

SMALL = 16
"""A batch with fewer tasks waits."""
LONGEST_WAIT = 0.005
"""Seconds. A statement that waits for a lock or for a silent connection delays others by no more than this."""
RETURN_TIME = 0.002
"""Seconds after a response within which the next request of its client is expected."""
WINDOW = 0.1
"""Seconds for which claims are counted, to find out whether other managers claim tasks, too."""
SHARED_FROM = 1.5
"""They do if this many times as many tasks were claimed as by this manager: it may have claims under way, which are
counted later."""


async def take_turns() -> None:
    """Let the event loop send the responses to the last batch, and read the requests that join the next one.

    In the first turn, the tasks of these requests go on, and new requests are read. In the second turn, the responses
    are sent, and the new requests join the batch. If the next statement were sent before, clients would wait for it.
    """
    await asyncio.sleep(0)
    await asyncio.sleep(0)


class Pacing:
    """Decides when the batchers of a manager send their statements."""

    def __init__(self) -> None:
        self._is_shared = False
        """Whether other managers claim tasks, too."""
        self._counted_since = monotonic()
        self._newest_lease: int | None = None
        """The newest lease when the count started; None before the first claim."""
        self._claimed = 0
        self._running = 0
        self._expected = 0
        """The number of clients that were answered and have not sent another request."""
        self._expected_until = 0.0
        self._changed = asyncio.Event()
        """Set when a statement ends, and with the last request that is expected."""

    def count(self, newest_lease: int, tasks: int) -> None:
        """Count the tasks of a claim. Each claimed task of the database takes the next number as its lease."""
        self._claimed += tasks
        now = monotonic()
        if now - self._counted_since > WINDOW:
            if self._newest_lease is not None:
                self._is_shared = newest_lease - self._newest_lease > SHARED_FROM * self._claimed
            self._counted_since, self._newest_lease, self._claimed = now, newest_lease, 0

    def arrive(self) -> None:
        """Count a request. If it was the last one that was expected, the batch that waits for it starts."""
        self._expected -= 1
        if self._expected == 0:
            self._changed.set()

    async def begin(self, size: Callable[[], int]) -> None:
        """Begin a statement. While other managers claim tasks, too, wait before as described above.

        Args:
            size: Returns the number of tasks in the next batch. A large one does not wait.
        """
        deadline = monotonic() + LONGEST_WAIT
        while self._is_shared and size() < SMALL and (self._running or self._expected > 0):
            left = (deadline if self._running else min(deadline, self._expected_until)) - monotonic()
            if left <= 0:
                break
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._changed.wait()
        self._running += 1

    def end(self, answered: int) -> None:
        """End a statement, after which this many requests are answered."""
        self._running -= 1
        now = monotonic()
        if now > self._expected_until:
            self._expected = 0
        self._expected = max(self._expected, 0) + answered
        self._expected_until = now + RETURN_TIME
        self._changed.set()
