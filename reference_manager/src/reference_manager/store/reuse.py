"""A pool whose connections are used again without a turn of the event loop.

The driver's pool starts a task for each release, and sets up and cancels a timer for each use. That takes a quarter of
the manager's time for a statement. So a released connection stays at hand for the next statement, and returns to the
driver's pool once a second.
"""

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, TypeAlias

import asyncpg

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"

RETURN_INTERVAL = timedelta(seconds=1)
"""How often connections at hand return to the driver's pool, which closes idle ones."""


class ReusingPool:
    """A pool of the driver, and the connections that are at hand.

    Args:
        pool: The pool of the driver.
    """

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool
        self._at_hand: list[Connection] = []
        self._waiting = 0
        """The number of callers that wait for the driver's pool."""
        self._returning: asyncio.Task[None] | None = None
        self._closing = False

    @property
    def max_size(self) -> int:
        """The maximum number of connections."""
        return self._pool.get_max_size()

    @property
    def size(self) -> int:
        """The number of connections."""
        return self._pool.get_size()

    @property
    def idle(self) -> int:
        """The number of connections that nobody uses."""
        return self._pool.get_idle_size() + len(self._at_hand)

    async def acquire(self, timeout: timedelta) -> Connection:  # noqa: ASYNC109 - it raises TimeoutError
        """Acquire a connection.

        Args:
            timeout: How long to wait for it.

        Raises:
            TimeoutError: No connection became free in time.
        """
        while self._at_hand:
            connection = self._at_hand.pop()
            if _is_reusable(connection):
                return connection
            await self._pool.release(connection)
        self._waiting += 1
        try:
            # With a timeout of its own, the pool would start a task, and take turns of the event loop.
            async with asyncio.timeout(timeout.total_seconds()):
                return await self._pool.acquire()
        finally:
            self._waiting -= 1

    async def release(self, connection: Connection) -> None:
        """Release a connection: to a caller that waits for one, or to the next caller."""
        if self._waiting or self._closing or not _is_reusable(connection):
            await self._pool.release(connection)
            return
        self._at_hand.append(connection)
        if self._returning is None:
            self._returning = asyncio.create_task(self._return_later())

    async def close(self) -> None:
        """Return the connections at hand, and close all connections once they are released."""
        self._closing = True
        if self._returning:
            self._returning.cancel()
        await self._return()
        await self._pool.close()

    async def _return_later(self) -> None:
        await asyncio.sleep(RETURN_INTERVAL.total_seconds())
        self._returning = None
        await self._return()

    async def _return(self) -> None:
        while self._at_hand:
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                await self._pool.release(self._at_hand.pop())


def _is_reusable(connection: Connection) -> bool:
    """Return whether a connection is open and in no transaction."""
    try:
        return not (connection.is_closed() or connection.is_in_transaction())
    except asyncpg.InterfaceError:
        return False  # it was closed, so that the driver's pool has forgotten it
