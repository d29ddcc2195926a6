"""What claims and settlements cost the database: index walks of bounded length, whatever lies around."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from reference_manager.domain.states import Priority
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


def claim(stage_type: str, limit: int) -> tuple[Any, ...]:
    """A claim without leases, as statement and arguments."""
    return sql.task_claim.sql, stage_type, limit, [1], [None], [timedelta(minutes=30)]


def complete(ids: Sequence[UUID]) -> tuple[Any, ...]:
    """Tasks that were claimed without leases are completed, as statement and arguments."""
    none = [None] * len(ids)
    return sql.task_complete.sql, ids, none, none, none


def settle(ids: Sequence[UUID]) -> tuple[Any, ...]:
    """The same on the way for what is not simple."""
    none = [None] * len(ids)
    return sql.task_settle.sql, ids, none, none, ["COMPLETED"] * len(ids), none, none, [True] * len(ids), none


@pytest.mark.timeout(60)  # writes fifty thousand rows
async def test_a_claim_touches_few_rows_whatever_lies_around(database: Database) -> None:
    """A long backlog, many finished tasks and busy stages of higher priority do not lengthen a claim's walk."""
    async with database.connection() as connection:
        await add_backlog(database, "guarded", 10)
        alone = await touched(connection, *claim("guarded", 10))

        finished = await add_backlog(database, "guarded", 20_000, Priority.VERY_HIGH)
        await connection.execute(
            """
            WITH finished AS (
                UPDATE tasks SET status = 'COMPLETED', outcome = 'COMPLETED', start_time = now(), end_time = now()
                WHERE seq % 4 > 0 AND stage_id = $1 RETURNING seq
            )
            DELETE FROM waiting_tasks WHERE stage_id = $1 AND seq IN (SELECT seq FROM finished)
            """,
            finished,
        )
        await add_backlog(database, "guarded", 20_000, Priority.VERY_LOW)
        for _ in range(200):
            await add_backlog(database, "guarded", 1, Priority.VERY_HIGH)
        # All tasks of the urgent stages become busy, so that only the backlog of lowest priority is left.
        await connection.fetch(*claim("guarded", 5200))
        for _ in range(3):
            await connection.fetch(*claim("guarded", 1))
        await connection.execute("ANALYZE")

        crowded = await touched(connection, *claim("guarded", 10))
        assert crowded <= alone + 10


@pytest.mark.timeout(60)  # writes twenty thousand rows
@pytest.mark.parametrize("statistics", ["of an empty table", "of the backlog"])
async def test_a_backlog_in_one_stage_is_never_scanned(database: Database, statistics: str) -> None:
    """Neither plans made while the tables were empty nor those made with fresh statistics read more than they need."""
    async with database.connection() as connection:
        if statistics == "of an empty table":
            await connection.execute("ANALYZE")
            await connection.fetch(*claim("guarded", 1))
            await connection.fetch(*complete([]))
            await connection.fetch(*settle([]))
        await add_backlog(database, "guarded", 20_000)
        if statistics == "of the backlog":
            await connection.execute("ANALYZE")
        for _ in range(3):
            for report in (complete, settle):
                ids = [row["task"] for row in await connection.fetch(*claim("guarded", 1))]
                assert await touched(connection, *report(ids)) < 20
            assert await touched(connection, *claim("guarded", 1)) < 20


@pytest.mark.timeout(60)  # writes twenty thousand rows
@pytest.mark.parametrize("report", [complete, settle])
async def test_a_report_touches_only_what_it_settles(
    database: Database, report: Callable[[Sequence[UUID]], tuple[Any, ...]]
) -> None:
    """Its cost does not grow with the tasks of the stage."""
    async with database.connection() as connection:

        async def settle_ten() -> int:
            ids = [row["task"] for row in await connection.fetch(*claim("guarded", 10))]
            return await touched(connection, *report(ids))

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
        assert len(await connection.fetch(*claim("guarded", 100))) == 50
        assert await touched(connection, *claim("guarded", 1)) == 0
