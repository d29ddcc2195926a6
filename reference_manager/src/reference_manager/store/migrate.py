"""Makes sure of the schema of this version, however many managers start at once."""

import asyncpg

from reference_manager.store.errors import UnsupportedDatabaseError, translated_errors
from reference_manager.store.schema import LOCK_KEY, LATEST_MIGRATION, ROUTINES


async def migrate(url: str) -> None:
    """Create or upgrade the schema ``jobnik`` in the database at ``url``, in one transaction, under an advisory lock.

    Tables change by numbered migrations, each run once. Routines are replaced every time, so that they are always those
    of the manager that started last.

    Raises:
        UnsupportedDatabaseError: The schema comes from a newer manager, the server is too old, or it refuses its user.
        DatabaseError: The database failed or cannot be reached.
    """
    with translated_errors():
        if await _replace_routines(url):
            return
        # Loading Alembic takes half of a manager's start, and most starts find nothing to upgrade.
        from reference_manager.store.upgrade import upgrade  # noqa: PLC0415

        await upgrade(url)


async def _replace_routines(url: str) -> bool:
    """Replace them where the tables are those of this version; else nothing is done."""
    connection = await asyncpg.connect(url)
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
