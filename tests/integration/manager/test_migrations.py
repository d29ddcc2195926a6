"""Migrations: applied once, even by concurrent managers, and never by an older manager."""

import asyncio
import os
import sys

import asyncpg
import pytest
from reference_manager.store.errors import UnsupportedDatabaseError
from reference_manager.store.migrate import migrate, upgrade
from reference_manager.store.schema import MIGRATIONS

SCHEMA = """
    SELECT string_agg(line, E'\\n' ORDER BY line) FROM (
        SELECT format('%s.%s.%s %s', table_schema, table_name, column_name, data_type) FROM information_schema.columns
        WHERE table_schema LIKE 'jobnik%'
        UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname LIKE 'jobnik%'
        UNION ALL SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'jobnik'::regnamespace
        UNION ALL
        SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace::regnamespace::text LIKE 'jobnik%'
        UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
        UNION ALL SELECT number FROM jobnik.applied_migrations
        UNION ALL SELECT version_num FROM jobnik.migrations
    ) AS lines (line)
"""


async def test_concurrent_migrations_are_applied_once(empty_url: str) -> None:
    """Five concurrent migrations produce one schema, and a later migration changes nothing."""
    await asyncio.gather(*(migrate(empty_url) for _ in range(5)))
    before = await schema(empty_url)
    assert "waiting_tasks" in before
    await migrate(empty_url)
    assert await schema(empty_url) == before


@pytest.mark.parametrize("count", range(1, len(MIGRATIONS)))
async def test_a_migrated_database_equals_a_fresh_one(empty_url: str, database_url: str, count: int) -> None:
    """A database of any earlier revision gets the same tables, constraints, triggers and functions as a new one."""
    connection = await asyncpg.connect(empty_url)
    try:
        await upgrade(connection, MIGRATIONS[:count])
    finally:
        await connection.close()
    older = await schema(empty_url)
    await migrate(empty_url)
    migrated = await schema(empty_url)
    assert older != migrated
    assert migrated == await schema(database_url)


async def schema(url: str) -> str:
    """Return the definitions of everything in the schema, one per line."""
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(SCHEMA)
    finally:
        await connection.close()


async def test_the_migrate_command_migrates_and_exits(empty_url: str, database_url: str) -> None:
    """The command creates the whole schema, and reports a missing setting or a database that does not exist."""
    assert await migrate_by_command("--database-url", empty_url) == (0, "")
    assert await schema(empty_url) == await schema(database_url)
    code, error = await migrate_by_command()
    assert (code, "JOBNIK_MANAGER_DATABASE_URL" in error) == (1, True)
    code, error = await migrate_by_command("--database-url", f"{empty_url.rpartition('/')[0]}/nowhere")
    assert (code, 'database "nowhere" does not exist' in error) == (1, True)


async def migrate_by_command(*arguments: str) -> tuple[int | None, str]:
    """Return the exit code and the error output of the command."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JOBNIK_MANAGER_")}
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "reference_manager", "migrate", *arguments),
        env=environment,
        stderr=asyncio.subprocess.PIPE,
    )
    _, error = await command.communicate()
    return command.returncode, error.decode()


async def test_a_newer_schema_is_refused(database_url: str) -> None:
    """A manager does not change a schema that a newer one has migrated, and says what to do."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("UPDATE jobnik.migrations SET version_num = '9999'")
    finally:
        await connection.close()
    with pytest.raises(UnsupportedDatabaseError, match="Update this manager"):
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
async def test_the_database_refuses_inconsistent_states(database_url: str, change: str, constraint: str) -> None:
    """Constraints tie times and counts to statuses, so that writes outside the manager cannot break them."""
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
