"""Connection pools, and the named queries of the files in ``queries``."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from functools import cached_property
from typing import NamedTuple, TypeAlias, cast

import asyncpg

from reference_manager.store.connections import (
    ANSWER_MARGIN,
    STATEMENT_TIMEOUT,
    Connector,
    DeadlineConnection,
    answers_within,
    sql,
)
from reference_manager.store.errors import DatabaseBusyError, DatabaseUnavailableError, translated_errors
from reference_manager.store.lock_waits import LockWaits
from reference_manager.store.reuse import Connection, ReusingPool
from reference_manager.store.schema import SEARCH_PATH

__all__ = ["SESSION", "Connection", "Database", "Pools", "Record", "sql"]

Record: TypeAlias = asyncpg.Record

SESSION = {
    "application_name": "jobnik-manager",
    "search_path": SEARCH_PATH,
    "jit": "off",  # the statements are so short that compiling them takes longer
    "lock_timeout": "10s",  # after this, the response is 503
    "statement_timeout": f"{STATEMENT_TIMEOUT.seconds}s",
    # A manager that hangs, or whose network is silent, must not hold locks or connections for ever.
    "idle_in_transaction_session_timeout": "10s",
    "idle_session_timeout": "20s",
    "client_connection_check_interval": "1s",  # the manager ends a statement by closing its connection
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "20s",
}
"""The settings of every session."""

MAX_IDLE = timedelta(seconds=10)
"""How long a connection may be idle. A pool closes it before PostgreSQL does (``idle_session_timeout``)."""
CLOSE_TIMEOUT = timedelta(seconds=2)
"""How long the manager waits until PostgreSQL has closed a connection."""
EXTENDED_STATEMENT_TIMEOUT = timedelta(minutes=5)
"""How long each statement of an extended transaction may run."""
MAINTENANCE_SESSION = SESSION | {"lock_timeout": "300ms"}  # after this, the job is skipped
"""The settings of the sessions of maintenance tasks."""


class Pools(NamedTuple):
    """Separate pools, so that requests that wait for locks cannot take the connections of the workers."""

    workers: ReusingPool
    """For claims, reports and heartbeats: statements that serve many requests, or that do not wait for locks."""
    general: ReusingPool
    """For everything else: clients may send any number of such requests, and some of these wait for locks."""


class Database:
    """Connections to a migrated database.

    Args:
        connector: Opens connections outside the pools.
        maintenance_connector: Opens connections of maintenance tasks, with the settings of ``MAINTENANCE_SESSION``.
        pools: The pools. Their connections have the settings of ``SESSION``.
        acquire_timeout: How long a request waits for a connection.
    """

    def __init__(
        self, connector: Connector, maintenance_connector: Connector, pools: Pools, acquire_timeout: timedelta
    ) -> None:
        self._connector = connector
        self._maintenance_connector = maintenance_connector
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

        Raises:
            DatabaseUnavailableError: The database cannot be reached.
        """
        general = connections // 2
        # Maintenance tasks hand tasks over, so they need the format of the responses, too.
        response_format = {"jobnik.part_a_only": "on" if part_a_only else "off"}
        connector = Connector(url, SESSION | response_format)
        maintenance_connector = Connector(url, MAINTENANCE_SESSION | response_format)
        async with _pool(connector, connections - general) as workers_pool, _pool(connector, general) as general_pool:
            yield cls(connector, maintenance_connector, Pools(workers_pool, general_pool), acquire_timeout)

    @cached_property
    def lock_waits(self) -> LockWaits:
        """Runs commands that may have to wait for locks. At most half of the connections of the general pool wait."""
        return LockWaits(max(self._pools.general.max_size // 2, 1))

    @property
    def connections(self) -> tuple[int, int]:
        """The numbers of used and of idle connections in the pools."""
        idle = sum(pool.idle for pool in self._pools)
        return sum(pool.size for pool in self._pools) - idle, idle

    @asynccontextmanager
    async def connection(self, *, for_workers: bool = False) -> AsyncGenerator[Connection]:
        """Acquire a connection for one statement. Errors of the driver in the block are raised as ``DatabaseError``.

        Args:
            for_workers: Whether to use the pool that is reserved for workers.

        Raises:
            DatabaseBusyError: No connection became free in time, or a lock was not granted in time.
            DatabaseUnavailableError: The database cannot be reached, or did not answer in time.
            DatabaseError: The database failed.
        """
        pool = self._pools.workers if for_workers else self._pools.general
        with translated_errors():
            try:
                connection = await pool.acquire(self._acquire_timeout)
            except TimeoutError as error:
                raise DatabaseBusyError("Every database connection is busy. Try again shortly.") from error
            try:
                yield connection
            except (asyncio.CancelledError, asyncpg.ReadOnlySQLTransactionError, asyncpg.InternalClientError):
                # The statement may still run, another server is the primary now, or the connection is broken.
                with suppress(asyncpg.InterfaceError):
                    connection.terminate()
                raise
            finally:
                await pool.release(connection)

    @asynccontextmanager
    async def transaction(self, *, snapshot: bool = False, extended: bool = False) -> AsyncGenerator[Connection]:
        """Acquire a connection and run the block in a transaction.

        Args:
            snapshot: Whether the transaction only reads, and all statements see the same snapshot.
            extended: Whether a statement may run for minutes, such as one that deletes a million tasks.
        """
        isolation = "repeatable_read" if snapshot else "read_committed"
        async with self.connection() as connection, connection.transaction(isolation=isolation, readonly=snapshot):
            if not extended:
                yield connection
                return
            limit = EXTENDED_STATEMENT_TIMEOUT
            await sql.transaction_extend(connection, milliseconds=str(limit // timedelta(milliseconds=1)))
            with answers_within(limit + ANSWER_MARGIN):
                yield connection

    async def check(self) -> None:
        """Check that the connections for workers can be used for work.

        Raises:
            DatabaseError: They cannot be used; the message says why.
        """
        async with self.connection(for_workers=True) as connection:
            session = await sql.session_check(connection)
            if not session["writable"]:
                raise DatabaseUnavailableError("the server is read-only, such as a standby")
            if not session["configured"]:
                raise DatabaseUnavailableError("the session lost its settings; is there a pooler in transaction mode?")

    @asynccontextmanager
    async def maintenance_connection(self) -> AsyncGenerator[Connection]:
        """Open a connection for a maintenance task, so that it never waits for one of the pools'."""
        with translated_errors():
            connection = await self._maintenance_connector.connect()
            try:
                # It has everything that a pool's connection has, but its type differs.
                yield cast("Connection", connection)
            finally:
                # Closing could take as long as the statement, and fail for a reason of its own.
                connection.terminate()

    @asynccontextmanager
    async def listener(self, channel: str, callback: Callable[..., None]) -> AsyncGenerator[DeadlineConnection]:
        """Listen to a channel on a separate connection.

        Args:
            channel: The channel of PostgreSQL.
            callback: Called with the connection, the process id of the sender, the channel and the payload.

        Yields:
            The connection.
        """
        with translated_errors():
            connection = await self._connector.connect()
            try:
                await connection.add_listener(channel, callback)
                yield connection
            finally:
                with suppress(TimeoutError):
                    await connection.close(timeout=CLOSE_TIMEOUT.total_seconds())


@asynccontextmanager
async def _pool(connector: Connector, size: int) -> AsyncGenerator[ReusingPool]:
    driver_pool = await asyncpg.create_pool(
        connect=connector.connect,
        connection_class=DeadlineConnection,
        init_size=1,
        min_size=0,
        max_size=size,
        max_inactive_connection_lifetime=MAX_IDLE.total_seconds(),
        reset=_skip_reset,
    )
    pool = ReusingPool(driver_pool)
    try:
        yield pool
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT.total_seconds()):
                await pool.close()  # if it is cancelled, it terminates the connections


async def _skip_reset(_connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Do nothing. The manager never changes a session, so skipping the reset saves a round trip at each release."""
