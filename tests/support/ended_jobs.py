"""Jobs that ended some time ago, for tests of retention."""

from collections.abc import Iterable
from datetime import timedelta
from uuid import UUID

from tests.support.sessions import AnyConnection

INSERT = """
    WITH created AS (
        INSERT INTO jobs (
            name, status, priority, data, user_metadata, traceparent, stages_total, stages_completed, ended_at
        )
        SELECT $1, $2, 'MEDIUM', '{}', '{}', $4, 1, 1, now() - age FROM unnest($3::interval[]) AS age
        RETURNING *
    ), listed AS (
        INSERT INTO ended_jobs (name, status, ended_at, job_id) SELECT name, status, ended_at, id FROM created
    ), stages AS (
        INSERT INTO stages (
            job_id, position, type, status, data, user_metadata, priority, job_open, traceparent, start_time, end_time,
            completed
        )
        SELECT id, 1, $1, 'COMPLETED', '{}', '{}', 'MEDIUM', false, $4, now(), now(), 2 FROM created RETURNING id
    ), tasks AS (
        INSERT INTO tasks
            (stage_id, status, outcome, max_attempts, start_time, end_time, data, user_metadata, traceparent)
        SELECT id, 'COMPLETED', 'COMPLETED', 3, now(), now(), '{}', '{}', $4 FROM stages, generate_series(1, 2)
    )
    SELECT id FROM created ORDER BY seq
"""
TRACEPARENT = "00-00000000000000000000000000000000-0000000000000000-00"


async def add_ended(connection: AnyConnection, name: str, status: str, ages: Iterable[timedelta]) -> list[UUID]:
    """Add a job for each age, with one stage of two tasks. Return their ids."""
    rows = await connection.fetch(INSERT, name, status, list(ages), TRACEPARENT)
    return [row["id"] for row in rows]


async def ages(connection: AnyConnection, name: str, status: str) -> list[int]:
    """Return for how many days the jobs with this name and status have been kept, the youngest first."""
    rows = await connection.fetch(
        """
        SELECT round(extract(epoch FROM now() - ended_at) / 86400)::integer AS days FROM jobs
        WHERE name = $1 AND status = $2 ORDER BY ended_at DESC
        """,
        name,
        status,
    )
    return [row["days"] for row in rows]
