"""The pool of connections, and the named queries of the .sql files beside it."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import aiosql
import asyncpg
from asyncpg.pool import PoolConnectionProxy

from reference_manager.store.errors import DatabaseBusyError, translated_errors

Record: TypeAlias = asyncpg.Record
Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"

# Any, since aiosql makes the methods from the files: await sql.job_get(connection, id=…, with_stages=…).
sql: Any = aiosql.from_path(  # pyright: ignore[reportUnknownMemberType] - aiosql types its own parameters loosely
    Path(__file__).parent / "queries", "asyncpg"
)

SESSION = {
    "application_name": "jobnik-manager",
    "search_path": "jobnik",
    "jit": "off",  # our statements take less time than compiling them would
    "lock_timeout": "10s",  # whoever waits longer is told to come again
    "idle_in_transaction_session_timeout": "10s",  # a manager that stands still must not hold a job's lock for ever
}


class Pools(NamedTuple):
    """Connections, apart by who takes them."""

    workers: "asyncpg.Pool[asyncpg.Record]"
    """For claims, reports and heartbeats: statements that many share, or that wait for nobody."""
    others: "asyncpg.Pool[asyncpg.Record]"
    """For everything of which there may be as much as clients like, and which may wait for what others have locked."""


class Database:
    """Connections to a migrated database.

    Args:
        url: For connections beside the pools.
        pools: Their connections have the settings of ``SESSION``.
        acquire_timeout: How long a request waits for a connection.
    """

    def __init__(self, url: str, pools: Pools, acquire_timeout: timedelta) -> None:
        self._url = url
        self._pools = pools
        self._acquire_timeout = acquire_timeout

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, url: str, *, connections: int, acquire_timeout: timedelta, part_a_only: bool = False
    ) -> AsyncGenerator["Database"]:
        """Open the pools, and close them at the end.

        Args:
            url: Where.
            connections: The most in both pools together, two or more; each gets half.
            acquire_timeout: How long a request waits for one.
            part_a_only: Whether entities are to be written without what only part B of the protocol knows.
        """
        others = connections // 2
        session = SESSION | {"jobnik.part_a_only": "on" if part_a_only else "off"}
        async with _pool(url, connections - others, session) as for_workers, _pool(url, others, session) as for_others:
            yield cls(url, Pools(for_workers, for_others), acquire_timeout)

    @property
    def connections(self) -> tuple[int, int]:
        """How many connections of the pools are in use, and how many are open besides."""
        idle = sum(pool.get_idle_size() for pool in self._pools)
        return sum(pool.get_size() for pool in self._pools) - idle, idle

    @asynccontextmanager
    async def connection(self, *, for_workers: bool = False) -> AsyncGenerator[Connection]:
        """A connection for one statement.

        Args:
            for_workers: From the half that is kept for what workers do all day.

        Raises:
            DatabaseBusyError: None became free in time, or a lock was not granted in time.
            DatabaseError: The database failed; errors of the driver in the ``async with`` block are raised as this.
        """
        pool = self._pools.workers if for_workers else self._pools.others
        with translated_errors():
            try:
                connection = await pool.acquire(timeout=self._acquire_timeout.total_seconds())
            except TimeoutError as error:
                raise DatabaseBusyError("Every database connection is busy. Try again shortly.") from error
            try:
                yield connection
            finally:
                await pool.release(connection)

    @asynccontextmanager
    async def transaction(self, *, snapshot: bool = False) -> AsyncGenerator[Connection]:
        """A connection for several statements that count together or not at all.

        Args:
            snapshot: Only reads, and all of them see the database as it was at the first.
        """
        isolation = "repeatable_read" if snapshot else "read_committed"
        async with self.connection() as connection, connection.transaction(isolation=isolation, readonly=snapshot):
            yield connection

    @asynccontextmanager
    async def listener(self, channel: str, heard: Callable[..., None]) -> AsyncGenerator[asyncio.Event]:
        """A connection of its own that listens; the event says that it has closed."""
        closed = asyncio.Event()
        with translated_errors():
            connection = await asyncpg.connect(self._url, server_settings=SESSION)
            try:
                connection.add_termination_listener(lambda _: closed.set())
                await connection.add_listener(channel, heard)
                yield closed
            finally:
                await connection.close()


def _pool(url: str, size: int, session: dict[str, str]) -> "asyncpg.Pool[asyncpg.Record]":
    return asyncpg.create_pool(url, min_size=1, max_size=size, server_settings=session, reset=_keep_session)


async def _keep_session(_connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Nothing here changes a session, so there is nothing to reset: one round trip less for each release."""
