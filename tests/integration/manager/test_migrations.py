"""Migrations: applied once, even by concurrent managers, and never by an older manager."""

import asyncio
import os
import sys

import asyncpg
import pytest
from reference_manager.store import migrate as migrate_module
from reference_manager.store.errors import DatabaseBusyError, UnsupportedDatabaseError
from reference_manager.store.migrate import migrate, record_use, upgrade
from reference_manager.store.pool import Database
from reference_manager.store.schema import MIGRATIONS, ROUTINE_SCHEMA, Migration

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

LATER_COLUMN = Migration("9999_later_column", "ALTER TABLE tasks ADD later text")
LATER_INDEX = Migration(
    "9999_later_index", "CREATE INDEX CONCURRENTLY IF NOT EXISTS later ON jobnik.tasks (updated_at)"
)


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


async def test_a_start_that_finds_its_routines_changes_nothing(
    connection: "asyncpg.Connection[asyncpg.Record]", database_url: str
) -> None:
    """Only the time of use changes. Routines that someone dropped, or that are not recorded, are created again."""
    before = await routine_set(connection)
    await migrate(database_url)
    used = await routine_set(connection)
    assert used["created"] == before["created"]
    assert used["used_at"] > before["used_at"]
    await connection.execute(f"DROP SCHEMA {ROUTINE_SCHEMA} CASCADE")
    await migrate(database_url)
    created = await routine_set(connection)
    assert created["created"] > used["created"]
    await connection.execute("DELETE FROM routine_sets")
    await migrate(database_url)
    assert (await routine_set(connection))["created"] > created["created"]


async def routine_set(connection: "asyncpg.Connection[asyncpg.Record]") -> asyncpg.Record:
    """Return when the only set of routines was used, and the id of its schema, which grows with each creation."""
    (row,) = await connection.fetch("SELECT used_at, to_regnamespace(name)::oid AS created FROM routine_sets")
    return row


async def test_a_running_manager_records_that_it_uses_its_routines(
    connection: "asyncpg.Connection[asyncpg.Record]", database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of use moves while a manager runs, not only when it starts."""
    monkeypatch.setattr(migrate_module, "USE_INTERVAL", 0.05)
    before = await routine_set(connection)
    async with asyncio.TaskGroup() as group:
        recording = group.create_task(record_use(database))
        while (await routine_set(connection))["used_at"] == before["used_at"]:  # noqa: ASYNC110 - a row changes silently
            await asyncio.sleep(0.01)
        recording.cancel()


async def test_unused_routines_are_dropped(connection: "asyncpg.Connection[asyncpg.Record]", database_url: str) -> None:
    """A migration drops sets that were not used for 30 days, but keeps the one that was used last before its own."""
    await connection.execute("DELETE FROM routine_sets")
    for name, days in (("jobnik_1", 50), ("jobnik_2", 40), ("jobnik_3", 31)):
        await connection.execute(f"CREATE SCHEMA {name} CREATE VIEW {name} AS SELECT 1")
        await connection.execute("INSERT INTO routine_sets VALUES ($1, now() - make_interval(days => $2))", name, days)
    await migrate(database_url)
    assert await routine_schemas(connection) == sorted(["jobnik_3", ROUTINE_SCHEMA])

    await connection.execute("DELETE FROM routine_sets WHERE name = $1", ROUTINE_SCHEMA)
    await connection.execute("CREATE SCHEMA jobnik_4")
    await connection.execute("INSERT INTO routine_sets VALUES ('jobnik_4', now() - interval '29 days')")
    await migrate(database_url)
    assert await routine_schemas(connection) == sorted(["jobnik_4", ROUTINE_SCHEMA])


async def routine_schemas(connection: "asyncpg.Connection[asyncpg.Record]") -> list[str]:
    """Return the schemas of routines, and check that exactly these are recorded."""
    found = await connection.fetch("SELECT nspname AS name FROM pg_namespace WHERE nspname LIKE 'jobnik\\_%'")
    recorded = await connection.fetch("SELECT name FROM routine_sets")
    assert set(found) == set(recorded)
    return sorted(row["name"] for row in found)


async def test_a_migration_that_waits_for_a_lock_does_not_hold_up_requests(
    connection: "asyncpg.Connection[asyncpg.Record]", database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a transaction keeps a migration from its lock, others may use the table. The migration follows later."""
    gave_up = asyncio.Event()
    monkeypatch.setattr(migrate_module, "PAUSE", 0.05)

    def warn(_event: str, **_fields: object) -> None:
        gave_up.set()

    monkeypatch.setattr(migrate_module.log, "warning", warn)
    reader, migrating = await asyncpg.connect(database_url), await asyncpg.connect(database_url)
    try:
        transaction = reader.transaction()
        await transaction.start()
        await reader.execute("SELECT FROM jobnik.tasks")
        upgrading = asyncio.create_task(upgrade(migrating, [LATER_COLUMN]))
        await gave_up.wait()
        await connection.execute("UPDATE tasks SET progress = NULL")
        assert not upgrading.done()
        await transaction.rollback()
        await upgrading
        assert await connection.fetch("SELECT later FROM tasks") == []
    finally:
        await reader.close()
        await migrating.close()


async def test_a_migration_that_gets_no_lock_says_what_to_do(
    connection: "asyncpg.Connection[asyncpg.Record]", database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails after some minutes, without having changed anything."""
    monkeypatch.setattr(migrate_module, "GIVE_UP_AFTER", 0.0)
    migrating = await asyncpg.connect(database_url)
    before = await schema(database_url)
    try:
        async with connection.transaction():
            await connection.execute("SELECT FROM tasks")
            with pytest.raises(DatabaseBusyError, match=r"9999_later.*pg_stat_activity"):
                await upgrade(migrating, [LATER_COLUMN])
        assert await schema(database_url) == before
    finally:
        await migrating.close()


async def test_an_interrupted_index_is_built_again(
    connection: "asyncpg.Connection[asyncpg.Record]", database_url: str
) -> None:
    """An index that an interrupted migration left invalid is rebuilt by one of the managers that start next."""
    managers = [await asyncpg.connect(database_url) for _ in range(2)]
    try:
        async with connection.transaction():
            await connection.execute("UPDATE tasks SET progress = NULL")  # the build waits for this transaction
            building = asyncio.create_task(managers[0].execute(LATER_INDEX.script))
            while await is_valid(managers[1]) is None:  # noqa: ASYNC110 - the build commits its first step silently
                await asyncio.sleep(0.01)
            await managers[1].execute("SELECT pg_cancel_backend($1)", managers[0].get_server_pid())
            with pytest.raises(asyncpg.QueryCanceledError):
                await building
        assert await is_valid(connection) is False
        await asyncio.gather(*(upgrade(manager, [LATER_INDEX]) for manager in managers))
        assert await is_valid(connection) is True
        assert await connection.fetchval("SELECT count(*) FROM applied_migrations WHERE number = '9999'") == 1
    finally:
        for manager in managers:
            await manager.close()


async def is_valid(connection: "asyncpg.Connection[asyncpg.Record]") -> bool | None:
    """Return whether the index of ``LATER_INDEX`` is valid; None if it does not exist."""
    return await connection.fetchval("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('jobnik.later')")


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


async def test_a_newer_schema_is_used_unless_something_was_removed(
    connection: "asyncpg.Connection[asyncpg.Record]", database_url: str
) -> None:
    """A manager ignores newer migrations that only add. If one requires a newer manager, the error says what to do."""
    await connection.execute("INSERT INTO applied_migrations VALUES ('9999')")
    before = await schema(database_url)
    await migrate(database_url)
    assert await schema(database_url) == before
    await connection.execute("UPDATE migrations SET version_num = '9999'")
    before = await schema(database_url)
    with pytest.raises(UnsupportedDatabaseError, match="Update this manager"):
        await migrate(database_url)
    assert await schema(database_url) == before


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
