"""The schema: made once, by whoever comes first, never by an older manager."""

import asyncio

import asyncpg
import pytest
from reference_manager.embedded import EmbeddedPostgres
from reference_manager.store.migrate import UnfitDatabaseError, migrate

SCHEMA = """
    SELECT string_agg(line, E'\\n' ORDER BY line) FROM (
        SELECT format('%s.%s %s', table_name, column_name, data_type) FROM information_schema.columns
        WHERE table_schema = 'jobnik'
        UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'jobnik'
        UNION ALL SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'jobnik'::regnamespace
        UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'jobnik'::regnamespace
    ) AS lines (line)
"""


async def test_managers_that_start_at_once_migrate_once(postgres: EmbeddedPostgres) -> None:
    """Five migrations at the same moment leave one schema, and another later changes nothing."""
    url = f"{postgres.url.rpartition('/')[0]}/contested"
    admin = await asyncpg.connect(postgres.url)
    await admin.execute("CREATE DATABASE contested")
    await admin.close()
    await asyncio.gather(*(migrate(url) for _ in range(5)))
    connection = await asyncpg.connect(url)
    try:
        before = await connection.fetchval(SCHEMA)
        assert "waiting_tasks" in before
        await migrate(url)
        assert await connection.fetchval(SCHEMA) == before
        assert await connection.fetchval("SELECT count(*) FROM jobnik.migrations") == 1
    finally:
        await connection.close()


async def test_a_newer_schema_is_refused(database_url: str) -> None:
    """A manager does not touch what a newer one has migrated, and says what to do."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("UPDATE jobnik.migrations SET version_num = '9999'")
    finally:
        await connection.close()
    with pytest.raises(UnfitDatabaseError, match="Update this one"):
        await migrate(database_url)


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        *(
            (f"UPDATE tasks SET {change}", "statuses_mean_what_they_say")  # noqa: S608 - no input
            for change in (
                "status = 'IN_PROGRESS', lease_id = 1",
                "status = 'IN_PROGRESS', start_time = now()",
                "status = 'COMPLETED', start_time = now(), outcome = 'COMPLETED'",
                "status = 'COMPLETED', start_time = now(), end_time = now(), outcome = 'FAILED'",
                "status = 'RETRIED', start_time = now()",
                "status = 'FAILED', start_time = now(), end_time = now()",
                "status = 'ABORTED'",
                "attempts = 1",
                "attempts = 4",
            )
        ),
        ("INSERT INTO stage_deltas (stage_id, pending, retried, in_progress) VALUES (new_id(), 0, 0, 1)", "make_none"),
        ("UPDATE stages SET status = 'IN_PROGRESS'", "started_stages_have_a_start_time"),
        ("UPDATE stages SET status = 'ABORTED'", "finished_stages_have_an_end_time"),
        (
            "UPDATE stages SET status = 'COMPLETED', start_time = now(), end_time = now()",
            "completed_stages_have_completed_tasks",
        ),
        ("UPDATE jobs SET status = 'COMPLETED'", "completed_jobs_have_completed_stages"),
    ],
)
async def test_the_database_refuses_impossible_states(database_url: str, change: str, constraint: str) -> None:
    """Checks tie times and figures to statuses: whoever writes past the manager cannot break them."""
    connection = await asyncpg.connect(database_url, server_settings={"search_path": "jobnik"})
    try:
        await connection.execute("""
            WITH job AS (
                INSERT INTO jobs (name, status, priority, data, user_metadata, traceparent, stages_total)
                VALUES ('a job', 'PENDING', 'MEDIUM', '{}', '{}', '', 1) RETURNING id
            ), stage AS (
                INSERT INTO stages
                    (job_id, position, type, status, data, user_metadata, priority, job_open, traceparent)
                SELECT id, 1, 'checked', 'PENDING', '{}', '{}', 'MEDIUM', true, '' FROM job RETURNING id
            )
            INSERT INTO tasks (stage_id, status, max_attempts, data, user_metadata, traceparent)
            SELECT id, 'PENDING', 3, '{}', '{}', '' FROM stage
        """)
        with pytest.raises(asyncpg.CheckViolationError, match=constraint):
            await connection.execute(change)
    finally:
        await connection.close()
