"""Upgrades a database from any earlier schema to that of this version."""

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from reference_manager.store.connections import Connector
from reference_manager.store.errors import UnsupportedDatabaseError
from reference_manager.store.schema import LOCK_KEY, MIGRATIONS, MIN_POSTGRES_VERSION, ROUTINES
from reference_manager.store.scripts import run_script


async def upgrade(url: str, revision: str = "head") -> None:
    """Create or upgrade the schema ``jobnik``, as described for ``migrate``.

    Args:
        url: The URL of the database.
        revision: The last migration to run. The routines are created only after the latest migration, "head".
    """
    # The driver itself connects, so that a URL, with options such as sslmode, means the same here as in the pool.
    engine = create_async_engine("postgresql+asyncpg://", async_creator=Connector(url, {}).connect)
    try:
        async with engine.begin() as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK_KEY})
            await connection.execute(text("CREATE SCHEMA IF NOT EXISTS jobnik"))
            await connection.execute(text("SET LOCAL search_path = jobnik"))
            await connection.run_sync(_upgrade, revision)
    except DBAPIError as error:
        # The server's own message, without the text that SQLAlchemy adds.
        raise UnsupportedDatabaseError(str(error.orig.__cause__ if error.orig else error)) from error
    finally:
        await engine.dispose()


def _upgrade(connection: Connection, revision: str) -> None:
    major = connection.exec_driver_sql("SELECT current_setting('server_version_num')::integer / 10000").scalar_one()
    if major < MIN_POSTGRES_VERSION:
        raise UnsupportedDatabaseError(
            f"The database is PostgreSQL {major}. The manager needs {MIN_POSTGRES_VERSION} or later."
        )
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, revision)
    except CommandError as error:
        if "Can't locate revision" in str(error):
            raise UnsupportedDatabaseError(
                "A newer manager migrated this database. Update this manager, then start it again."
            ) from error
        raise
    if revision == "head":
        for routine in ROUTINES:
            run_script(connection, routine)
