"""The database cost of a list page: an index scan of bounded length, whatever else the tables contain."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID

import pytest
from reference_manager.store.pool import Connection, Database, sql

from tests.support.statistics import touched

MANY = 50_000
SCAN_LIMIT = 20_000
"""The maximum number of rows that a page reads: see take_page in list_pages.sql."""

LIMIT = 100
MIDDLE = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=MANY // 2)

Position: TypeAlias = tuple[datetime | UUID | None, int | None]
START: Position = (None, None)
"""The position before all rows."""

FILL = """
    INSERT INTO jobs (name, status, priority, data, user_metadata, traceparent, created_at, stages_total)
    SELECT 'a job', 'PENDING', 'MEDIUM', '{}', '{"album": 2026}', '',
        '2026-01-01Z'::timestamptz + number * interval '1 s', 1
    FROM generate_series(1, 50000) AS number;

    INSERT INTO stages (job_id, position, type, status, data, user_metadata, priority, job_open, traceparent, pending)
    SELECT id, 1, 'guarded', 'PENDING', '{}', '{}', 'MEDIUM', true, '',
        CASE WHEN seq = 40000 THEN 50000 ELSE 0 END FROM jobs;

    INSERT INTO tasks (stage_id, status, max_attempts, data, user_metadata, traceparent, created_at)
    SELECT (SELECT id FROM stages WHERE pending > 0), 'PENDING', 3, '{}', '{}', '', created_at FROM jobs;
"""

FILL_HISTORY = """
    WITH job AS (
        INSERT INTO jobs (name, status, priority, data, user_metadata, traceparent, stages_total)
        SELECT 'a job', 'PENDING', 'MEDIUM', '{}', '{}', '', 1 FROM generate_series(1, 3) RETURNING id
    ), stage AS (
        INSERT INTO stages (job_id, position, type, status, data, user_metadata, priority, job_open, traceparent)
        SELECT id, 1, 'guarded', 'PENDING', '{}', '{}', 'MEDIUM', true, '' FROM job RETURNING id, job_id
    ), task AS (
        INSERT INTO tasks (stage_id, status, max_attempts, data, user_metadata, traceparent)
        SELECT id, 'PENDING', 3, '{}', '{}', '' FROM stage RETURNING id, stage_id
    ), attempt AS (
        INSERT INTO attempts (lease_id, task_id, outcome, source, target, start_time, end_time)
        SELECT 3 * number + place, id, 'SNOOZED', 'PENDING', 'PENDING', now(), now()
        FROM (SELECT id, row_number() OVER () AS place FROM task) AS task, generate_series(1, 50000) AS number
        WHERE place < 3 OR number < 10
    ), changes AS (
        INSERT INTO history (job_id, stage_id, source, target)
        SELECT job_id, id, 'PENDING', 'IN_PROGRESS' FROM generate_series(1, 10000), stage
    )
    SELECT job_id, stage.id, task.id FROM task JOIN stage ON stage.id = stage_id
    JOIN (SELECT id, row_number() OVER () AS place FROM task) AS placed ON placed.id = task.id WHERE place = 2
"""


def job_page(  # noqa: PLR0913 - the filters are the protocol's
    *,
    name: str | None = None,
    status: str | None = None,
    metadata: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    after: Position = START,
    descending: bool = False,
) -> tuple[Any, ...]:
    """Return the statement and arguments of a page of jobs."""
    statuses = None if status is None else [status]
    pairs = None if metadata is None else [["album", metadata]]
    filters = (name, None, statuses, pairs, since, until, None)
    return (sql.job_list.sql, *filters, True, descending, *after, LIMIT)


def stage_page(
    *, job: UUID | None = None, of_type: str | None = None, after: Position = START, descending: bool = False
) -> tuple[Any, ...]:
    """Return the statement and arguments of a page of stages."""
    return (sql.stage_list.sql, job, of_type, None, None, None, True, descending, *after, LIMIT)


def task_page(  # noqa: PLR0913 - as above
    *,
    stage: UUID | None = None,
    status: str | None = None,
    metadata: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    after: Position = START,
    descending: bool = False,
) -> tuple[Any, ...]:
    """Return the statement and arguments of a page of tasks."""
    statuses = None if status is None else [status]
    pairs = None if metadata is None else [["album", metadata]]
    return (sql.task_list.sql, stage, None, statuses, pairs, since, until, None, descending, *after, LIMIT)


async def settle_plans(connection: Connection) -> None:
    """Run each statement often enough for the server to settle on its plans."""
    for _ in range(6):
        for descending in (False, True):
            for page in (
                job_page(descending=descending),
                stage_page(descending=descending),
                task_page(descending=descending),
                task_page(stage=UUID(int=0), descending=descending),
            ):
                await connection.fetch(*page)


@pytest.mark.timeout(180)  # writes a hundred and fifty thousand rows
@pytest.mark.parametrize("statistics", ["of empty tables", "of full tables"])
async def test_a_page_is_an_index_scan_of_bounded_length(database: Database, statistics: str) -> None:
    """From any position a page reads only what it returns; where nothing matches, it stops after SCAN_LIMIT rows."""
    async with database.connection() as connection:
        if statistics == "of empty tables":
            await connection.execute("ANALYZE")
            await settle_plans(connection)
        await connection.execute(FILL)
        if statistics == "of full tables":
            await connection.execute("ANALYZE")
            await settle_plans(connection)

        (job,) = await connection.fetch("SELECT id, created_at, seq FROM jobs WHERE created_at = $1", MIDDLE)
        (stage,) = await connection.fetch("SELECT id, job_id FROM stages WHERE job_id = $1", job["id"])
        (task,) = await connection.fetch("SELECT stage_id, created_at, seq FROM tasks WHERE created_at = $1", MIDDLE)
        at_job, at_task = (job["created_at"], job["seq"]), (task["created_at"], task["seq"])
        full = {
            "jobs": [
                job_page(),
                job_page(after=at_job),
                job_page(since=MIDDLE),
                job_page(name="a job", status="PENDING", metadata="2026", after=at_job),
                job_page(descending=True),
                job_page(descending=True, after=at_job),
                job_page(descending=True, until=MIDDLE),
                job_page(descending=True, until=MIDDLE, after=at_job),
            ],
            "stages": [
                stage_page(),
                stage_page(after=(stage["job_id"], 1)),
                stage_page(of_type="guarded"),
                stage_page(descending=True),
                stage_page(descending=True, after=(stage["job_id"], 1)),
            ],
            "tasks": [
                task_page(),
                task_page(after=at_task),
                task_page(since=MIDDLE),
                task_page(since=MIDDLE, after=at_task),
                task_page(stage=task["stage_id"]),
                task_page(stage=task["stage_id"], after=at_task),
                task_page(descending=True),
                task_page(descending=True, after=at_task),
                task_page(descending=True, until=MIDDLE),
                task_page(descending=True, stage=task["stage_id"]),
                task_page(descending=True, stage=task["stage_id"], after=at_task),
            ],
        }
        # Each entity adds its stages, tasks or stage, and one more entity shows that there is a next page.
        for name, listed in full.items():
            for number, page in enumerate(listed):
                assert len(await connection.fetch(*page)) == LIMIT + 1
                assert await touched(connection, *page) <= 2 * (LIMIT + 2), f"{name} {number}"

        few = [
            page
            for descending in (False, True)
            for page in (
                stage_page(job=job["id"], descending=descending),
                stage_page(job=UUID(int=0), descending=descending),
                task_page(stage=stage["id"], descending=descending),
            )
        ]
        for number, page in enumerate(few):
            assert await touched(connection, *page) <= 3, number

        none = [
            job_page(name="no job"),
            job_page(status="FAILED", descending=True),
            job_page(metadata="2025", descending=True),
            stage_page(of_type="nothing"),
            task_page(status="FAILED"),
            task_page(metadata="2025", descending=True),
        ]
        for number, page in enumerate([*none, task_page(stage=task["stage_id"], status="FAILED")]):
            (row,) = await connection.fetch(*page)
            assert row["body"] is None
            assert SCAN_LIMIT <= await touched(connection, *page) <= 2 * (SCAN_LIMIT + 1), number


@pytest.mark.timeout(180)  # writes a hundred and fifty thousand rows
async def test_rare_entities_are_found_over_several_pages(database: Database) -> None:
    """A page may be empty and still have a next one, which continues the scan, so that nothing is missed."""
    async with database.connection() as connection:
        await connection.execute(FILL)
        wanted = await connection.fetch("""
            UPDATE tasks SET status = 'ABORTED', end_time = now() WHERE seq % 16000 = 0 RETURNING id::text
        """)
        found: list[str] = []
        pages, after = 0, START
        while True:
            rows = await connection.fetch(*task_page(status="ABORTED", after=after))
            pages += 1
            found += [json.loads(row["body"])["id"] for row in rows if row["body"] is not None]
            if not rows or rows[-1]["body"] is not None:
                break
            after = (rows[-1]["major"], rows[-1]["minor"])
        assert found == [row["id"] for row in wanted]
        assert pages == MANY // SCAN_LIMIT + 1


@pytest.mark.timeout(180)  # writes a hundred thousand rows
@pytest.mark.parametrize("statistics", ["of empty tables", "of full tables"])
async def test_a_page_of_a_history_is_an_index_scan_of_bounded_length(database: Database, statistics: str) -> None:
    """A page of attempts or changes reads only what it returns, whichever task or job it belongs to."""
    async with database.connection() as connection:

        async def settle() -> None:
            await connection.execute("ANALYZE")
            for _ in range(6):
                for descending in (False, True):
                    await connection.fetch(sql.attempt_list.sql, UUID(int=0), descending, None, None, LIMIT)
                    await connection.fetch(sql.change_list.sql, UUID(int=0), None, descending, None, LIMIT)
                    await connection.fetch(sql.task_history_list.sql, UUID(int=0), descending, None, LIMIT)

        if statistics == "of empty tables":
            await settle()
        ((job_id, stage_id, task_id),) = await connection.fetch(FILL_HISTORY)
        if statistics == "of full tables":
            await settle()
        middle: int = await connection.fetchval(
            "SELECT lease_id FROM attempts WHERE task_id = $1 ORDER BY lease_id OFFSET 5000", task_id
        )
        positions: list[tuple[int | None, int | None]] = [(None, None), (middle, 5001)]
        for descending in (False, True):
            for after in positions:
                page: tuple[Any, ...] = (sql.attempt_list.sql, task_id, descending, *after, LIMIT)
                rows = await connection.fetch(*page)
                assert len(rows) == LIMIT + 1
                # The first descending page counts all attempts, in the index.
                counted = MANY if descending and after[0] is None else 0
                assert await touched(connection, *page) <= counted + LIMIT + 10
                page = (sql.task_history_list.sql, task_id, descending, after[0], LIMIT)
                assert await touched(connection, *page) <= LIMIT + 10
            page = (sql.change_list.sql, job_id, stage_id, descending, None, LIMIT)
            assert len(await connection.fetch(*page)) == LIMIT + 1
            assert await touched(connection, *page) <= LIMIT + 10
