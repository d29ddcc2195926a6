"""What a statement costs the database, by the database's own figures."""

from typing import Any

from reference_manager.store.database import Connection

ROWS = """
    SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint FROM pg_stat_xact_user_tables
    WHERE schemaname = 'jobnik'
"""


async def touched(connection: Connection, statement: str, *arguments: Any) -> int:  # noqa: ANN401 - any parameters
    """How many rows a statement fetches."""
    async with connection.transaction():
        before = await connection.fetchval(ROWS)
        await connection.fetch(statement, *arguments)
        return await connection.fetchval(ROWS) - before
