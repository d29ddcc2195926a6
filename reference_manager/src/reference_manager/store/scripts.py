"""Runs files of several SQL statements inside a migration, which neither Alembic nor prepared statements can."""

from pathlib import Path

import asyncpg
from sqlalchemy import Connection


def run_script(connection: Connection, file: Path) -> None:
    """Run an SQL file on this connection, in its transaction, which must be under way."""
    script = file.read_text(encoding="utf-8")

    async def execute(driver: asyncpg.Connection) -> None:
        await driver.execute(script)

    # SQLAlchemy's asyncpg adapter prepares what it executes; asyncpg's own execute takes a whole script.
    connection.connection.dbapi_connection.run_async(execute)  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
