"""Connection pools, and the named queries of the files in ``queries``."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, cast

import aiosql
import asyncpg
from asyncpg.pool import PoolConnectionProxy
from pydantic_core import to_json

from reference_manager.store.errors import DatabaseBusyError, translated_errors

Record: TypeAlias = asyncpg.Record
Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"

# Any, because aiosql creates the methods from the files: await sql.job_get(connection, id=…, with_stages=…).
sql: Any = aiosql.from_path(  # pyright: ignore[reportUnknownMemberType] - aiosql types its own parameters loosely
    Path(__file__).parent / "queries",
    "asyncpg",
    mandatory_parameters=False,  # lists of parameters that do not fit into one line are left out
)

SESSION = {
    "application_name": "jobnik-manager",
    "search_path": "jobnik",
    "jit": "off",  # the statements are so short that compiling them takes longer
    "lock_timeout": "10s",  # after this, the response is 503
    "idle_in_transaction_session_timeout": "10s",  # a manager that hangs must not hold the lock of a job for ever
}
"""The settings of every session."""

MAINTENANCE_SESSION = SESSION | {
    "lock_timeout": "300ms",  # after this, the job is passed by
    "idle_session_timeout": "60s",  # a manager that hangs or is cut off must not keep the lock of a maintenance task
}
"""The settings of the sessions of maintenance tasks."""


def encode(payload: object) -> str:
    """Encode a payload as JSON text, as the database stores it."""
    return to_json(payload).decode()


def encode_optional(payload: object) -> str | None:
    """Encode a payload as JSON text. None stays None, for a payload that was not given."""
    return None if payload is None else encode(payload)


class Pools(NamedTuple):
    """Separate pools, so that requests that wait for locks cannot take the connections of the workers."""

    workers: "asyncpg.Pool[asyncpg.Record]"
    """For claims, reports and heartbeats: statements that serve many requests, or that do not wait for locks."""
    general: "asyncpg.Pool[asyncpg.Record]"
    """For everything else: clients may send any number of such requests, and these may wait for locks."""


class Database:
    """Connections to a migrated database.

    Args:
        url: The URL of the database, for connections outside the pools.
        pools: The pools. Their connections have the settings of ``SESSION``.
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
        """Open the pools, and close them at the end of the ``async with`` block.

        Args:
            url: The URL of the database.
            connections: The maximum number of connections, two or more. Each pool gets half.
            acquire_timeout: How long a request waits for a connection.
            part_a_only: Whether to omit the fields of part B of the protocol from the JSON of entities.
        """
        general = connections // 2
        session = SESSION | {"jobnik.part_a_only": "on" if part_a_only else "off"}
        async with (
            _pool(url, connections - general, session) as workers_pool,
            _pool(url, general, session) as general_pool,
        ):
            yield cls(url, Pools(workers_pool, general_pool), acquire_timeout)

    @property
    def connections(self) -> tuple[int, int]:
        """The numbers of used and of idle connections in the pools."""
        idle = sum(pool.get_idle_size() for pool in self._pools)
        return sum(pool.get_size() for pool in self._pools) - idle, idle

    @asynccontextmanager
    async def connection(self, *, for_workers: bool = False) -> AsyncGenerator[Connection]:
        """Acquire a connection for one statement. Errors of the driver in the block are raised as ``DatabaseError``.

        Args:
            for_workers: Whether to use the pool that is reserved for workers.

        Raises:
            DatabaseBusyError: No connection became free in time, or a lock was not granted in time.
            DatabaseError: The database failed or cannot be reached.
        """
        pool = self._pools.workers if for_workers else self._pools.general
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
        """Acquire a connection and run the block in a transaction.

        Args:
            snapshot: Whether the transaction only reads, and all statements see the same snapshot.
        """
        isolation = "repeatable_read" if snapshot else "read_committed"
        async with self.connection() as connection, connection.transaction(isolation=isolation, readonly=snapshot):
            yield connection

    @asynccontextmanager
    async def maintenance_connection(self) -> AsyncGenerator[Connection]:
        """Open a connection for a maintenance task, so that it never waits for one of the pools'."""
        with translated_errors():
            connection = await asyncpg.connect(self._url, server_settings=MAINTENANCE_SESSION)
            try:
                # It has everything that a pool's connection has, but its type differs.
                yield cast("Connection", connection)
            except BaseException:
                # Also if cancelled: closing could take as long as the statement, and fail for a reason of its own.
                connection.terminate()
                raise
            await connection.close()

    @asynccontextmanager
    async def listener(self, channel: str, callback: Callable[..., None]) -> AsyncGenerator[asyncio.Event]:
        """Listen to a channel on a separate connection.

        Args:
            channel: The channel of PostgreSQL.
            callback: Called with the connection, the process id of the sender, the channel and the payload.

        Yields:
            An event that is set when the connection has closed.
        """
        closed = asyncio.Event()
        with translated_errors():
            connection = await asyncpg.connect(self._url, server_settings=SESSION)
            try:
                connection.add_termination_listener(lambda _: closed.set())
                await connection.add_listener(channel, callback)
                yield closed
            finally:
                await connection.close()


def _pool(url: str, size: int, session: dict[str, str]) -> "asyncpg.Pool[asyncpg.Record]":
    return asyncpg.create_pool(url, min_size=1, max_size=size, server_settings=session, reset=_skip_reset)


async def _skip_reset(_connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Do nothing. The manager never changes a session, so skipping the reset saves a round trip at each release."""
