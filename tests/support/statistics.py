"""What a statement costs the database, by the database's own figures."""

import json
from typing import Any

from reference_manager.store.pool import Connection

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


async def buffers(connection: Connection, statement: str, *arguments: Any) -> int:  # noqa: ANN401 - as above
    """How many pages a statement looks at, in memory or on disk."""
    explained = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", *arguments)
    plan = json.loads(explained)[0]["Plan"]
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
