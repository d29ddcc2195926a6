"""What a page of a list costs the database: an index walk of bounded length, whatever lies around."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID

import pytest
from reference_manager.store.pool import Connection, Database, sql

from tests.support.statistics import touched

MANY = 50_000
REACH = 20_000
"""The most rows that a page looks at: take_page in list_pages.sql."""

LIMIT = 100
MIDDLE = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=MANY // 2)

Place: TypeAlias = tuple[datetime | UUID | None, int | None]
NOWHERE: Place = (None, None)
"""Before everything."""

FILL = """
    INSERT INTO jobs (name, status, priority, data, user_metadata, traceparent, created_at, stages_total)
    SELECT 'a job', 'PENDING', 'MEDIUM', '{}', '{}', '', '2026-01-01Z'::timestamptz + number * interval '1 s', 1
    FROM generate_series(1, 50000) AS number;

    INSERT INTO stages (job_id, position, type, status, data, user_metadata, priority, job_open, traceparent, pending)
    SELECT id, 1, 'guarded', 'PENDING', '{}', '{}', 'MEDIUM', true, '',
        CASE WHEN seq = 40000 THEN 50000 ELSE 0 END FROM jobs;

    INSERT INTO tasks (stage_id, status, max_attempts, data, user_metadata, traceparent, created_at)
    SELECT (SELECT id FROM stages WHERE pending > 0), 'PENDING', 3, '{}', '{}', '', created_at FROM jobs;
"""


def job_page(*, name: str | None = None, since: datetime | None = None, after: Place = NOWHERE) -> tuple[Any, ...]:
    """A page of jobs."""
    return (sql.job_list.sql, name, None, since, None, None, True, *after, LIMIT)


def stage_page(*, job: UUID | None = None, of_type: str | None = None, after: Place = NOWHERE) -> tuple[Any, ...]:
    """A page of stages."""
    return (sql.stage_list.sql, job, of_type, None, None, True, *after, LIMIT)


def task_page(
    *, stage: UUID | None = None, status: str | None = None, since: datetime | None = None, after: Place = NOWHERE
) -> tuple[Any, ...]:
    """A page of tasks."""
    return (sql.task_list.sql, stage, None, status, since, None, None, *after, LIMIT)


async def plan(connection: Connection) -> None:
    """Let the server settle on its plans."""
    for _ in range(6):
        for page in (job_page(), stage_page(), task_page(), task_page(stage=UUID(int=0))):
            await connection.fetch(*page)


@pytest.mark.timeout(60)  # writes a hundred and fifty thousand rows
@pytest.mark.parametrize("statistics", ["of empty tables", "of full tables"])
async def test_a_page_is_an_index_walk_of_bounded_length(database: Database, statistics: str) -> None:
    """Wherever a page begins it fetches what it answers; where nothing matches, it gives up after so many rows."""
    async with database.connection() as connection:
        if statistics == "of empty tables":
            await connection.execute("ANALYZE")
            await plan(connection)
        await connection.execute(FILL)
        if statistics == "of full tables":
            await connection.execute("ANALYZE")
            await plan(connection)

        (job,) = await connection.fetch("SELECT id, created_at, seq FROM jobs WHERE created_at = $1", MIDDLE)
        (stage,) = await connection.fetch("SELECT id, job_id FROM stages WHERE job_id = $1", job["id"])
        (task,) = await connection.fetch("SELECT stage_id, created_at, seq FROM tasks WHERE created_at = $1", MIDDLE)
        at_job, at_task = (job["created_at"], job["seq"]), (task["created_at"], task["seq"])
        full = {
            "jobs": [job_page(), job_page(after=at_job), job_page(since=MIDDLE), job_page(name="a job", after=at_job)],
            "stages": [stage_page(), stage_page(after=(stage["job_id"], 1)), stage_page(of_type="guarded")],
            "tasks": [
                task_page(),
                task_page(after=at_task),
                task_page(since=MIDDLE),
                task_page(since=MIDDLE, after=at_task),
                task_page(stage=task["stage_id"]),
                task_page(stage=task["stage_id"], after=at_task),
            ],
        }
        # Beside each entity: its stages or tasks or stage, and one more to know that there is a next page.
        for name, listed in full.items():
            for number, page in enumerate(listed):
                assert len(await connection.fetch(*page)) == LIMIT + 1
                assert await touched(connection, *page) <= 2 * (LIMIT + 2), f"{name} {number}"

        few = [stage_page(job=job["id"]), stage_page(job=UUID(int=0)), task_page(stage=stage["id"])]
        for number, page in enumerate(few):
            assert await touched(connection, *page) <= 3, number

        none = [job_page(name="no job"), stage_page(of_type="nothing"), task_page(status="FAILED")]
        for number, page in enumerate([*none, task_page(stage=task["stage_id"], status="FAILED")]):
            (row,) = await connection.fetch(*page)
            assert row["body"] is None
            assert REACH <= await touched(connection, *page) <= 2 * (REACH + 1), number


@pytest.mark.timeout(60)  # writes a hundred and fifty thousand rows
async def test_what_is_rare_is_found_in_the_end(database: Database) -> None:
    """A page may be empty and yet have a next: the walk goes on from there, and misses nothing."""
    async with database.connection() as connection:
        await connection.execute(FILL)
        wanted = await connection.fetch("""
            UPDATE tasks SET status = 'ABORTED', end_time = now() WHERE seq % 16000 = 0 RETURNING id::text
        """)
        found: list[str] = []
        pages, after = 0, NOWHERE
        while True:
            rows = await connection.fetch(*task_page(status="ABORTED", after=after))
            pages += 1
            found += [json.loads(row["body"])["id"] for row in rows if row["body"] is not None]
            if not rows or rows[-1]["body"] is not None:
                break
            after = (rows[-1]["major"], rows[-1]["minor"])
        assert found == [row["id"] for row in wanted]
        assert pages == MANY // REACH + 1
