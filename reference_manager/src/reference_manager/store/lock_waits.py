"""Waits for locks of other sessions, without keeping connections that other requests need.

A command that finds a lock taken gives its connection back and tries again later. Only a few connections wait for
locks, in turns: the command with the fewest turns so far is next. Of the commands that need the same lock, only the
first one tries; the others wait behind it.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import timedelta
from heapq import heappop, heappush
from itertools import count
from typing import TypeVar

from reference_manager.store.errors import LockTimeoutError

Result = TypeVar("Result")

LOCK_TIMEOUT = timedelta(seconds=10)
"""How long a command may wait for the locks that it needs."""
NO_WAIT = timedelta()
"""A turn in which the command only tries to take its locks."""
LONG_TURN, SHORT_TURN = timedelta(milliseconds=300), timedelta(milliseconds=10)
"""How long a command waits for each of its locks in one turn: a shorter time if other commands wait for their turn."""
FIRST_PAUSE, LONGEST_PAUSE = 0.01, 1.0
"""Seconds between two turns of a command. The pause doubles after each turn. A turn may hold some locks while it waits
for another one, and the pause lets other sessions have them."""

client_is_gone: ContextVar[Callable[[], Awaitable[bool]] | None] = ContextVar("client_is_gone", default=None)
"""Returns whether the client of this request has disconnected. Its commands then stop waiting for locks."""


class _Queue:
    """The commands that need the same lock."""

    def __init__(self) -> None:
        self.first = asyncio.Lock()
        """Held by the first command."""
        self.length = 0


class LockWaits:
    """Repeats commands until other sessions have released the locks that they need.

    Args:
        connections: The maximum number of connections that wait for locks at the same time.
    """

    def __init__(self, connections: int) -> None:
        self._free = connections
        self._next: list[tuple[int, int, asyncio.Future[None]]] = []
        """A heap of the commands that wait for a turn: their turns so far, their number, and a future of the turn."""
        self._numbers = count()
        self._queues: dict[Hashable, _Queue] = {}

    async def run(
        self, key: Hashable, attempt: Callable[[timedelta], Awaitable[Result]], within: timedelta = LOCK_TIMEOUT
    ) -> Result:
        """Run a command.

        Args:
            key: Identifies the lock that the command needs.
            attempt: Executes the command. It waits for each lock no longer than its argument says, and changes nothing
                if it raises LockTimeoutError.
            within: How long to wait for locks.

        Raises:
            LockTimeoutError: The locks were not released in time, or the client has disconnected.
        """
        deadline = asyncio.get_running_loop().time() + within.total_seconds()
        if key not in self._queues:
            waits = self._take_connection()
            try:
                return await attempt(LONG_TURN if waits else NO_WAIT)
            except LockTimeoutError:
                pass
            finally:
                if waits:
                    self._pass_on()
        async with self._first_place(key, deadline):
            return await self._repeat(attempt, deadline)

    async def _repeat(self, attempt: Callable[[timedelta], Awaitable[Result]], deadline: float) -> Result:
        clock = asyncio.get_running_loop().time
        turns, pause = 0, FIRST_PAUSE
        while True:
            async with self._turn(turns, deadline) as wait:
                is_gone = client_is_gone.get()
                if is_gone and await is_gone():
                    raise LockTimeoutError("the client disconnected while its command waited for a lock")
                try:
                    return await attempt(wait)
                except LockTimeoutError:
                    if clock() >= deadline:
                        raise
            await asyncio.sleep(min(pause, max(deadline - clock(), 0)))
            turns, pause = turns + 1, min(2 * pause, LONGEST_PAUSE)

    @asynccontextmanager
    async def _first_place(self, key: Hashable, deadline: float) -> AsyncGenerator[None]:
        """Wait until no other command with this key repeats its attempts."""
        queue = self._queues.setdefault(key, _Queue())
        queue.length += 1
        try:
            async with _until(deadline):
                await queue.first.acquire()
            try:
                yield
            finally:
                queue.first.release()
        finally:
            queue.length -= 1
            if not queue.length:
                del self._queues[key]

    @asynccontextmanager
    async def _turn(self, turns: int, deadline: float) -> AsyncGenerator[timedelta]:
        """Wait for a turn, and yield how long it may wait for a lock."""
        if not self._take_connection():
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            heappush(self._next, (turns, next(self._numbers), turn))
            try:
                async with _until(deadline):
                    await turn
            except BaseException:
                if not turn.cancelled():
                    self._pass_on()
                raise
        try:
            yield SHORT_TURN if self._next else LONG_TURN
        finally:
            self._pass_on()

    def _take_connection(self) -> bool:
        """Start a turn if a connection is free and no command waits for it. Return whether it did."""
        taken = self._free > 0
        self._free -= taken
        return taken

    def _pass_on(self) -> None:
        """End a turn, and let the next command have the connection."""
        while self._next:
            _, _, turn = heappop(self._next)
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


@asynccontextmanager
async def _until(deadline: float) -> AsyncGenerator[None]:
    """Raise LockTimeoutError at the deadline."""
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError:
        raise LockTimeoutError("another session held a lock for too long") from None
