"""Waits for locks of other sessions, without keeping connections that other requests need.

Of the commands that need the same lock, two at most are executed at the same time: the second one waits behind the
first, so that no time is lost between them. A command that another session keeps from its locks gives its connection
back and tries again later. Only a few connections wait for locks, in turns: the command with the fewest turns so far is
next.
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
FIRST_PAUSE, LONGEST_PAUSE = 0.01, 0.5
"""Seconds between two turns of a command. The pause doubles after each turn. A turn may hold some locks while it waits
for another one, and the pause lets other sessions have them."""

REFUSED_TIMEOUT = timedelta(seconds=2)
"""How long a command may wait if its request must not wait for longer."""
AT_ONCE = 2
"""The maximum number of commands with the same key that are executed at the same time."""

client_is_gone: ContextVar[Callable[[], bool] | None] = ContextVar("client_is_gone", default=None)
"""Returns whether the client of this request has disconnected. Its commands then stop waiting for locks."""
may_wait: ContextVar[Callable[[], bool] | None] = ContextVar("may_wait", default=None)
"""Called before a command of this request waits for longer. Returns whether it may; otherwise, it soon fails."""


class _Queue:
    """The commands that need the same lock, in the order in which they arrived."""

    def __init__(self) -> None:
        self.length = 0
        self.executed = asyncio.Semaphore(AT_ONCE)
        self.repeated = asyncio.Semaphore(1)


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
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = _Queue()
        queue.length += 1
        try:
            async with _held(queue.executed, deadline):
                return await self._execute(queue, attempt, deadline)
        finally:
            queue.length -= 1
            if not queue.length:
                del self._queues[key]

    async def _execute(
        self, queue: _Queue, attempt: Callable[[timedelta], Awaitable[Result]], deadline: float
    ) -> Result:
        if not queue.repeated.locked():
            waits = self._take_connection()
            try:
                return await attempt(LONG_TURN if waits else NO_WAIT)
            except LockTimeoutError:
                pass
            finally:
                if waits:
                    self._pass_on()
        deadline = _ask(deadline)
        clock = asyncio.get_running_loop().time
        turns, pause = 0, FIRST_PAUSE
        async with _held(queue.repeated, deadline):
            while True:
                async with self._turn(turns, deadline) as wait:
                    _check_client()
                    try:
                        return await attempt(wait)
                    except LockTimeoutError:
                        if clock() >= deadline:
                            raise
                await asyncio.sleep(min(pause, max(deadline - clock(), 0)))
                turns, pause = turns + 1, min(2 * pause, LONGEST_PAUSE)

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


@asynccontextmanager
async def _held(semaphore: asyncio.Semaphore, deadline: float) -> AsyncGenerator[None]:
    """Hold a semaphore. Raise LockTimeoutError at the deadline, or if the client has disconnected by then."""
    try:
        if semaphore.locked():
            async with asyncio.timeout(LONG_TURN.total_seconds()):
                await semaphore.acquire()
        else:
            await semaphore.acquire()
        is_late = False
    except TimeoutError:
        async with _until(_ask(deadline)):
            await semaphore.acquire()
        is_late = True
    try:
        if is_late:
            _check_client()
        yield
    finally:
        semaphore.release()


def _ask(deadline: float) -> float:
    """Ask whether the command may wait until the deadline. Return until when it may."""
    ask = may_wait.get()
    if ask is None or ask():
        return deadline
    return min(deadline, asyncio.get_running_loop().time() + REFUSED_TIMEOUT.total_seconds())


def _check_client() -> None:
    is_gone = client_is_gone.get()
    if is_gone and is_gone():
        raise LockTimeoutError("the client disconnected while its command waited for a lock")
