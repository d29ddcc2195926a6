"""Migrates the database to the schema of this version. Several managers may start at the same time."""

import asyncpg

from reference_manager.store.connections import Connector, answers_within
from reference_manager.store.errors import UnsupportedDatabaseError, translated_errors
from reference_manager.store.schema import LATEST_MIGRATION, LOCK_KEY, ROUTINES


async def migrate(url: str) -> None:
    """Create or upgrade the schema ``jobnik`` in one transaction, under an advisory lock.

    Numbered migrations change the tables; each runs once. Routines are replaced at every start, so that they are always
    those of the manager that started last.

    Args:
        url: The URL of the database.

    Raises:
        UnsupportedDatabaseError: The schema is from a newer manager, the server is too old, or it rejects the user.
        DatabaseError: The database failed or cannot be reached.
    """
    with translated_errors(), answers_within(None):
        if await _replace_routines(url):
            return
        # Importing Alembic takes half of a manager's start-up time, and most starts have nothing to upgrade.
        from reference_manager.store.upgrade import upgrade  # noqa: PLC0415

        await upgrade(url)


async def _replace_routines(url: str) -> bool:
    """Replace the routines if the tables are those of this version. Return whether they were."""
    connection = await Connector(url, {}).connect()
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK_KEY)
            table = await connection.fetchval("SELECT to_regclass('jobnik.migrations')")
            if (
                table is None
                or await connection.fetchval("SELECT version_num FROM jobnik.migrations") != LATEST_MIGRATION
            ):
                return False
            await connection.execute("SET LOCAL search_path = jobnik")
            for routine in ROUTINES:
                await connection.execute(routine.read_text(encoding="utf-8"))
    except asyncpg.PostgresError as error:
        raise UnsupportedDatabaseError(str(error)) from error
    finally:
        await connection.close()
    return True
