"""Runs SQL files with several statements, for migrations. Neither Alembic nor a prepared statement can do this."""

from collections.abc import Callable
from pathlib import Path

import asyncpg
from alembic import op
from sqlalchemy import Connection


def sql_migration(module: str) -> tuple[str, str | None, Callable[[], None]]:
    """Build a migration from the SQL file with the same name as its module.

    Args:
        module: The ``__file__`` of the module. Its name begins with the revision: four digits, numbered without gaps.

    Returns:
        What Alembic reads from a module: ``revision``, ``down_revision`` and ``upgrade``.
    """
    file = Path(module).with_suffix(".sql")
    number = int(file.name.partition("_")[0])
    return f"{number:04}", f"{number - 1:04}" if number > 1 else None, lambda: run_script(op.get_bind(), file)


def run_script(connection: Connection, file: Path) -> None:
    """Run an SQL file on this connection, in its current transaction."""
    script = file.read_text(encoding="utf-8")

    async def execute(driver: asyncpg.Connection) -> None:
        await driver.execute(script)

    # SQLAlchemy's asyncpg adapter prepares what it executes; asyncpg's own execute takes a whole script.
    connection.connection.dbapi_connection.run_async(execute)  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
