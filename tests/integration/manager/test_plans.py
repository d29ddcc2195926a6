"""What claims and settlements cost the database: index walks of bounded length, whatever lies around."""

import json
from typing import Any

import pytest
from reference_manager.domain.states import Priority
from reference_manager.engine.queue import TaskQueue
from reference_manager.store.database import Connection, Database, sql

from tools.backlog import add_backlog


async def touched(connection: Connection, statement: str, *arguments: Any) -> int:  # noqa: ANN401 - any parameters
    """How many rows a statement fetches, by the server's own statistics."""
    count = """
        SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint FROM pg_stat_xact_user_tables
        WHERE schemaname = 'jobnik'
    """
    async with connection.transaction():
        before = await connection.fetchval(count)
        await connection.fetch(statement, *arguments)
        return await connection.fetchval(count) - before


@pytest.mark.timeout(60)  # writes fifty thousand rows
async def test_a_claim_touches_few_rows_whatever_lies_around(database: Database) -> None:
    """A long backlog, many finished tasks and busy stages of higher priority do not lengthen a claim's walk."""
    async with database.connection() as connection:
        await add_backlog(database, "guarded", 10)
        alone = await touched(connection, sql.task_claim.sql, "guarded", 10)

        finished = await add_backlog(database, "guarded", 20_000, Priority.VERY_HIGH)
        await connection.execute(
            """
            UPDATE tasks SET status = 'COMPLETED', start_time = now(), end_time = now()
            WHERE seq % 4 > 0 AND stage_id = $1
            """,
            finished,
        )
        await add_backlog(database, "guarded", 20_000, Priority.VERY_LOW)
        for _ in range(200):
            await add_backlog(database, "guarded", 1, Priority.VERY_HIGH)
        queue = TaskQueue(database)
        # All tasks of the urgent stages become busy, so that only the backlog of lowest priority is left.
        await connection.fetch(sql.task_claim.sql, "guarded", 5200)
        for _ in range(3):
            await queue.claim("guarded")
        await connection.execute("ANALYZE")

        crowded = await touched(connection, sql.task_claim.sql, "guarded", 10)
        assert crowded <= alone + 10


@pytest.mark.timeout(60)  # writes twenty thousand rows
@pytest.mark.parametrize("statistics", ["of an empty table", "of the backlog"])
async def test_a_backlog_in_one_stage_is_never_scanned(database: Database, statistics: str) -> None:
    """Neither plans made while the tables were empty nor those made with fresh statistics read more than they need."""
    async with database.connection() as connection:
        if statistics == "of an empty table":
            await connection.execute("ANALYZE")
            await connection.fetch(sql.task_claim.sql, "guarded", 1)
            await connection.fetch(sql.task_settle.sql, [], [])
        await add_backlog(database, "guarded", 20_000)
        if statistics == "of the backlog":
            await connection.execute("ANALYZE")
        for _ in range(3):
            rows = await connection.fetch(sql.task_claim.sql, "guarded", 1)
            ids = [json.loads(body)["id"] for (body,) in rows]
            assert await touched(connection, sql.task_settle.sql, ids, ["COMPLETED"]) < 20
            assert await touched(connection, sql.task_claim.sql, "guarded", 1) < 20


@pytest.mark.timeout(60)  # writes twenty thousand rows
async def test_a_settlement_touches_only_what_it_settles(database: Database) -> None:
    """Its cost does not grow with the tasks of the stage."""
    async with database.connection() as connection:

        async def settle_ten() -> int:
            rows = await connection.fetch(sql.task_claim.sql, "guarded", 10)
            ids = [json.loads(body)["id"] for (body,) in rows]
            return await touched(connection, sql.task_settle.sql, ids, ["COMPLETED"] * 10)

        await add_backlog(database, "guarded", 30)
        alone = [await settle_ten() for _ in range(2)][-1]
        await connection.execute("DELETE FROM jobs")
        await add_backlog(database, "guarded", 20_000)
        assert [await settle_ten() for _ in range(3)][-1] <= alone + 10


async def test_a_claim_of_nothing_touches_next_to_nothing(database: Database) -> None:
    """Stages whose tasks have all been claimed leave the queue: idle workers do not walk past them."""
    async with database.connection() as connection:
        for _ in range(50):
            await add_backlog(database, "guarded", 1)
        assert len(await connection.fetch(sql.task_claim.sql, "guarded", 100)) == 50
        assert await touched(connection, sql.task_claim.sql, "guarded", 1) == 0
