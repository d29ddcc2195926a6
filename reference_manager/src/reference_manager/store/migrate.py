"""Migrates the database to the schema of this version. Several managers may start at the same time.

Managers of the previous version may serve requests meanwhile. Each migration is therefore a transaction of its own,
which gives up when it does not get a lock soon, and indexes of large tables are built concurrently.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from time import monotonic
from typing import Final, TypeAlias, TypeVar

import asyncpg
import structlog

from reference_manager.store.connections import Connector, answers_within, sql
from reference_manager.store.errors import DatabaseBusyError, DatabaseError, UnsupportedDatabaseError, translated_errors
from reference_manager.store.pool import Database
from reference_manager.store.schema import (
    BASELINE,
    LATEST_MIGRATION,
    LEDGER,
    LOCK_KEY,
    MIGRATIONS,
    MIN_POSTGRES_VERSION,
    ROUTINE_SCHEMA,
    ROUTINES,
    Migration,
)

T = TypeVar("T")
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

log = structlog.stdlib.get_logger(__name__)

LOCK_TIMEOUT: Final = "1500ms"
"""How long a migration waits for a lock. All requests that use the table wait behind it. Longer than
``deadlock_timeout`` (1 s), after which PostgreSQL cancels an autovacuum that holds the lock."""
PAUSE: Final = 3.0
"""Seconds until the next attempt, in which those requests proceed."""
GIVE_UP_AFTER: Final = 300.0
"""Seconds after which a migration that does not get its locks fails."""

USE_INTERVAL: Final = 300.0
"""Seconds between two records that routines are in use. Unused ones are dropped after 30 days."""

_LOCKED: Final = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)


async def migrate(url: str) -> None:
    """Create or upgrade the schema ``jobnik``, and create the routines of this version, unless the database has them.

    Args:
        url: The URL of the database.

    Raises:
        UnsupportedDatabaseError: A newer manager removed what this version uses, the server is too old, or it rejects
            the user.
        DatabaseBusyError: Other sessions held a lock for minutes.
        DatabaseError: The database failed or cannot be reached.
    """
    with translated_errors(), answers_within(None):
        connection = await Connector(url, {}).connect()
        try:
            if not await _use_routines(connection):
                await upgrade(connection, MIGRATIONS)
                await _in_turn(connection, "routines", _create_routines)
        except asyncpg.PostgresError as error:
            raise UnsupportedDatabaseError(str(error)) from error
        finally:
            await connection.close()


async def upgrade(connection: Connection, migrations: Iterable[Migration]) -> None:
    """Run the migrations that have not been run in this database, in order.

    Args:
        connection: A connection that is not in a transaction.
        migrations: All migrations of this version, or the first ones.

    Raises:
        UnsupportedDatabaseError: As for ``migrate``.
        DatabaseBusyError: As for ``migrate``.
    """
    major = connection.get_server_version().major
    if major < MIN_POSTGRES_VERSION:
        raise UnsupportedDatabaseError(
            f"The database is PostgreSQL {major}. The manager needs {MIN_POSTGRES_VERSION} or later."
        )
    await _in_turn(connection, "ledger", _create_ledger)
    for migration in migrations:
        if index := migration.concurrent_index:
            await _build_index(connection, migration, *index)
        else:
            await _in_turn(connection, migration.name, partial(_run, migration=migration))


async def record_use(database: Database, progress: Callable[[], None] = lambda: None) -> None:
    """Record every five minutes that the routines of this version are in use, until cancelled. Unused ones are dropped.

    Args:
        database: The migrated database.
        progress: Called after each interval.
    """
    while True:
        await asyncio.sleep(USE_INTERVAL)
        progress()
        try:
            async with database.connection() as connection:
                await sql.routines_use(connection, name=ROUTINE_SCHEMA, latest=LATEST_MIGRATION)
        except DatabaseError as error:
            log.warning("use of routines not recorded; the manager tries again", error=str(error))


async def _use_routines(connection: Connection) -> bool:
    """Record that this version uses the database. Return whether it may use it without a migration."""
    async with connection.transaction():
        return bool(
            await sql.routines_known(connection)
            and await sql.routines_use(connection, name=ROUTINE_SCHEMA, latest=LATEST_MIGRATION)
        )


async def _in_turn(connection: Connection, name: str, step: Callable[[Connection], Awaitable[T]]) -> T:
    """Run a step in a transaction, one manager at a time, and repeat it until it gets all of its locks."""
    give_up = monotonic() + GIVE_UP_AFTER
    while True:
        try:
            async with connection.transaction():
                await sql.migration_begin(connection, lock_timeout=LOCK_TIMEOUT, key=LOCK_KEY)
                return await step(connection)
        except _LOCKED as error:
            if monotonic() > give_up:
                raise _locked_error(name) from error
            log.warning("migration waits for a lock", step=name, error=str(error))
        await asyncio.sleep(PAUSE)


def _locked_error(name: str) -> DatabaseBusyError:
    return DatabaseBusyError(
        f"For {GIVE_UP_AFTER:.0f} seconds, other sessions held a lock that the migration needs ({name})."
        " End their transactions, which pg_stat_activity lists, then start the manager again."
    )


async def _create_ledger(connection: Connection) -> None:
    await connection.execute(LEDGER)
    if await sql.migration_required(connection) > LATEST_MIGRATION:
        raise UnsupportedDatabaseError(
            "A newer manager migrated this database. Update this manager, then start it again."
        )


async def _run(connection: Connection, migration: Migration) -> None:
    if await sql.migration_pending(connection, number=migration.number):
        await connection.execute(migration.script)
        await sql.migration_record(connection, number=migration.number)
        if migration.number <= BASELINE:
            await sql.migration_require(connection, number=migration.number)


async def _build_index(connection: Connection, migration: Migration, index: str, table: str) -> None:
    """Build an index outside a transaction, unless another manager is building it or has built it."""

    async def is_missing(connection: Connection) -> bool:
        if not await sql.migration_pending(connection, number=migration.number):
            return False
        await sql.index_choose(connection, index=index, table=table)
        await sql.index_drop_invalid(connection)
        if not await sql.index_exists(connection, index=index):
            return True
        await sql.migration_record(connection, number=migration.number)
        return False

    give_up = monotonic() + GIVE_UP_AFTER
    while await _in_turn(connection, migration.name, is_missing):
        try:
            await connection.execute(migration.script)
        except _LOCKED as error:
            if monotonic() > give_up:
                raise _locked_error(migration.name) from error
            log.warning("index was not built; the migration tries again", index=index, error=str(error))


async def _create_routines(connection: Connection) -> None:
    await sql.routines_choose(connection, name=ROUTINE_SCHEMA)
    await sql.routines_create(connection)
    await connection.execute(ROUTINES)
    await sql.routines_drop_unused(connection)
