"""Retention: which ended jobs are deleted, by whom, and when not."""

import asyncio
import json
import os
import re
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
from jobnik_devtools.environments import clean_environment
from reference_manager.archive.files import ArchiveFile
from reference_manager.archive.stores import Folder
from reference_manager.domain.commands import RetentionRule
from reference_manager.engine import metrics
from reference_manager.engine.maintenance import retention
from reference_manager.engine.maintenance.retention import Retention
from reference_manager.engine.records.retention import RetentionRules
from reference_manager.store.migrate import upgrade
from reference_manager.store.pool import Database, sql
from reference_manager.store.schema import MIGRATIONS

from tests.support.ended_jobs import add_ended, ages
from tests.support.invariants import violations
from tests.support.protocol import Client, refused
from tests.support.sessions import Session, session
from tests.support.statistics import touched
from tools.manager import ManagerProcess
from tools.snapshot import ROOT

DAY = timedelta(days=1)
DEFAULT = {"completedSeconds": 2592000, "failedSeconds": 7776000, "abortedSeconds": 2592000, "keepLast": 0}
NEVER = {"completedSeconds": None, "failedSeconds": None, "abortedSeconds": None, "keepLast": 0}


async def do_pass(database: Database, task: Retention | None = None) -> None:
    """Do a pass, as a manager does when it is due."""
    async with database.maintenance_connection() as connection:
        await connection.execute("UPDATE retention_state SET next_pass = now()")
        await (task or Retention()).run_once(connection)


def rule(days: int | None, *, keep_last: int = 0) -> RetentionRule:
    """Return a rule that deletes all jobs after this number of days."""
    age = None if days is None else days * DAY
    return RetentionRule(age, age, age, keep_last)


def deleted(status: str) -> float:
    """Return how many jobs with this status this process has deleted."""
    return metrics.REGISTRY.get_sample_value("jobnik_retention_deleted_total", {"job_status": status}) or 0


async def test_a_new_database_keeps_jobs_for_30_or_90_days(database: Database, connection: Session) -> None:
    """Completed and aborted jobs are deleted after 30 days, failed ones after 90. The metrics tell what was done."""
    before = {status: deleted(status) for status in ("COMPLETED", "FAILED", "ABORTED")}
    days = [DAY * number for number in (1, 29, 31, 89, 91)]
    for status in before:
        await add_ended(connection, "a job", status, days)
    assert not await violations(connection)
    await do_pass(database)
    assert await ages(connection, "a job", "COMPLETED") == await ages(connection, "a job", "ABORTED") == [1, 29]
    assert await ages(connection, "a job", "FAILED") == [1, 29, 31, 89]
    assert {status: deleted(status) - count for status, count in before.items()} == {
        "COMPLETED": 3,
        "FAILED": 1,
        "ABORTED": 3,
    }
    assert not await violations(connection)
    row = await sql.metric_retention(connection)
    assert [round(row[status] / 86400) for status in ("completed", "failed", "aborted")] == [29, 89, 29]
    assert row["due"] == 7
    assert await connection.fetchval("SELECT count(*) FROM deleted_stages") == 7


async def test_the_rule_of_a_name_replaces_that_of_all_jobs(database: Database, connection: Session) -> None:
    """A job is judged by the rule of its name, if there is one. A status without an age is kept."""
    for name in ("audit", "nightly", "other"):
        for status in ("COMPLETED", "FAILED"):
            await add_ended(connection, name, status, [DAY, 3 * DAY, 9 * DAY])
    rules = RetentionRules(database)
    await rules.set({None: rule(2), "audit": rule(None), "nightly": RetentionRule(8 * DAY, None, None, 0)})
    await do_pass(database)
    assert await ages(connection, "audit", "COMPLETED") == await ages(connection, "audit", "FAILED") == [1, 3, 9]
    assert await ages(connection, "nightly", "COMPLETED") == [1, 3]
    assert await ages(connection, "nightly", "FAILED") == [1, 3, 9]
    assert await ages(connection, "other", "COMPLETED") == await ages(connection, "other", "FAILED") == [1]
    await rules.set({None: rule(2)})
    await do_pass(database)
    assert await ages(connection, "audit", "FAILED") == await ages(connection, "nightly", "FAILED") == [1]


@pytest.mark.parametrize(
    ("keep_last", "completed", "failed"),
    [
        (0, [1], []),
        (1, [1], []),
        (2, [1], [3]),
        (3, [1, 4], [3]),
        (5, [1, 4, 6], [3, 5]),
        (6, [1, 4, 6], [3, 5, 7]),
        (7, [1, 4, 6], [3, 5, 7]),
    ],
)
async def test_the_last_jobs_of_a_name_are_kept(
    database: Database, connection: Session, keep_last: int, completed: list[int], failed: list[int]
) -> None:
    """`keepLast` counts the jobs of a name that ended last, whatever their status, and keeps exactly these."""
    await add_ended(connection, "a job", "COMPLETED", [DAY * number for number in (1, 4, 6)])
    await add_ended(connection, "a job", "FAILED", [DAY * number for number in (3, 5, 7)])
    await add_ended(connection, "another job", "FAILED", [100 * DAY])
    await RetentionRules(database).set({None: rule(2, keep_last=keep_last)})
    await do_pass(database)
    assert await ages(connection, "a job", "COMPLETED") == completed
    assert await ages(connection, "a job", "FAILED") == failed
    assert await ages(connection, "another job", "FAILED") == ([100] if keep_last else [])


async def test_the_last_of_jobs_that_ended_at_once_are_kept(database: Database, connection: Session) -> None:
    """Their ids decide, so that exactly the wanted number is left."""
    jobs = await add_ended(connection, "a job", "COMPLETED", [9 * DAY] * 7)
    await RetentionRules(database).set({None: rule(2, keep_last=3)})
    await do_pass(database)
    left = [row["id"] for row in await connection.fetch("SELECT id FROM jobs")]
    assert sorted(left) == sorted(jobs)[-3:]


async def test_an_unfinished_job_is_never_deleted(database: Database, connection: Session) -> None:
    """A job that has not ended is not listed, however old it is."""
    await connection.execute("""
        INSERT INTO jobs (name, status, priority, data, user_metadata, traceparent, created_at, updated_at)
        SELECT 'old', status, 'LOW', '{}', '{}', '', now() - interval '3 years', now() - interval '3 years'
        FROM unnest(ARRAY['PENDING', 'IN_PROGRESS', 'PAUSED']::job_status[]) AS status
    """)
    await RetentionRules(database).set({None: rule(1)})
    await do_pass(database)
    assert await connection.fetchval("SELECT count(*) FROM jobs") == 3


async def test_a_clock_that_jumps_ahead_deletes_nothing_at_once(
    database: Database, connection: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of retention runs at most twice as fast as time passes. Setting the rules sets it, too."""
    await add_ended(connection, "a job", "COMPLETED", [DAY * number for number in (10, 364, 393, 394, 396, 397)])
    await connection.execute("UPDATE retention_state SET clock = now() - interval '365 days'")
    task = Retention()
    await do_pass(database, task)  # as if the clock had jumped by a year
    assert await ages(connection, "a job", "COMPLETED") == [10, 364, 393, 394]
    day_later = task._clock_seen_at + 25 * 3600  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(retention, "monotonic", lambda: day_later)
    await do_pass(database, task)  # a day later: two days are over
    assert await ages(connection, "a job", "COMPLETED") == [10, 364]
    monkeypatch.undo()
    for _ in range(2):
        await do_pass(database, Retention())  # a manager that was just started does not know how much time has passed
    assert await ages(connection, "a job", "COMPLETED") == [10, 364]
    await RetentionRules(database).set({None: rule(30)})
    await do_pass(database)
    assert await ages(connection, "a job", "COMPLETED") == [10]


async def test_a_locked_job_does_not_hold_up_others(database: Database, connection: Session, other: Session) -> None:
    """Neither the lock of a job nor that of its row; both jobs are deleted later."""
    jobs = await add_ended(connection, "a job", "COMPLETED", [40 * DAY] * 5)
    async with connection.transaction(), other.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(job_key($1))", jobs[0])
        await other.execute("SELECT FROM jobs WHERE id = $1 FOR UPDATE", jobs[1])
        await do_pass(database)
        rows = await connection.fetch("SELECT id FROM jobs ORDER BY id")
        assert [row["id"] for row in rows] == sorted(jobs[:2])
    await do_pass(database)
    assert await connection.fetchval("SELECT count(*) FROM jobs") == 0


async def test_rules_apply_from_the_response_on(database: Database, connection: Session) -> None:
    """A change of the rules waits for the deletion that is in progress. A job is judged again when it is deleted."""
    jobs = await add_ended(connection, "a job", "COMPLETED", [40 * DAY] * 2)
    async with connection.transaction():
        row = await sql.retention_delete(connection, ids=jobs[:1], prints=None, stages=10, waits=False)
        assert (row["busy"], row["completed"]) == ([], 1)
        change = asyncio.create_task(RetentionRules(database).set({None: rule(None)}))
        await asyncio.sleep(0)
        assert not change.done()
    await change
    row = await sql.retention_delete(connection, ids=jobs[1:], prints=None, stages=10, waits=False)
    assert (row["busy"], row["completed"]) == ([], 0)
    assert await connection.fetchval("SELECT count(*) FROM jobs") == 1


async def test_a_transaction_deletes_few_stages(connection: Session) -> None:
    """So that it holds the locks of its jobs only briefly; at least one job is deleted, whatever its size."""
    jobs = await add_ended(connection, "a job", "COMPLETED", [40 * DAY] * 5)
    await connection.execute("UPDATE jobs SET stages_total = 7, stages_completed = 7")
    steps = [
        (await sql.retention_delete(connection, ids=jobs, prints=None, stages=14, waits=False))["completed"]
        for _ in range(3)
    ]
    assert steps == [2, 2, 1]
    (large,) = await add_ended(connection, "a job", "COMPLETED", [40 * DAY])
    await connection.execute("UPDATE jobs SET stages_total = 50, stages_completed = 50")
    assert (await sql.retention_delete(connection, ids=[large], prints=None, stages=14, waits=False))["completed"] == 1


@pytest.mark.timeout(180)  # writes twenty thousand rows
@pytest.mark.parametrize("statistics", ["of empty tables", "of full tables"])
async def test_a_pass_does_not_read_what_it_keeps(database: Database, statistics: str) -> None:
    """It reads a few rows for each name, whatever is kept: by age, by a rule without an age, or as one of the last."""
    async with database.connection() as connection:
        look: tuple[Any, ...] = (sql.retention_due_jobs.sql, "", False, [], 1000, 1000)
        if statistics == "of empty tables":
            await connection.execute("ANALYZE")
            for _ in range(6):  # the server settles on its plans after this many runs
                await touched(connection, *look)
        for name in ("young", "kept", "last"):
            await add_ended(connection, name, "COMPLETED", [2 * DAY if name == "young" else 99 * DAY] * 2500)
        await connection.execute("INSERT INTO retention_rules VALUES ('kept')")
        await connection.execute("INSERT INTO retention_rules VALUES ('last', '1 day', '1 day', '1 day', 2500)")
        if statistics == "of full tables":
            await connection.execute("ANALYZE")
        assert await touched(connection, *look) < 2500 + 100
        await connection.execute("UPDATE retention_rules SET keep_last = 10 WHERE job_name = 'last'")
        assert await touched(connection, *look[:-1], 100) < 200 + 2500  # it counts the due jobs
        assert await touched(connection, sql.retention_is_due.sql) < 10
        (job,) = await add_ended(connection, "single", "COMPLETED", [40 * DAY])
        delete = (sql.retention_delete.sql, [job], None, 10, False)
        assert await touched(connection, *delete) < 60


async def test_an_upgraded_database_keeps_everything(empty_url: str) -> None:
    """Until someone sets a rule. Then the jobs that ended before the upgrade are found, by their last change."""
    connection = await asyncpg.connect(empty_url)
    try:
        await upgrade(connection, [migration for migration in MIGRATIONS if migration.number < "0019"])
        await connection.execute("""
            SET search_path = jobnik;
            INSERT INTO routine_sets (name) VALUES ('jobnik_earlier');
            INSERT INTO jobs (name, status, priority, data, user_metadata, traceparent, created_at, updated_at)
            SELECT 'a job', 'PENDING', 'LOW', '{}', '{}', '', now() - interval '99 days',
                now() - days * interval '1 day'
            FROM generate_series(1, 50) AS days;
            UPDATE jobs SET status = 'FAILED' WHERE seq % 2 = 0;
        """)
    finally:
        await connection.close()
    with ManagerProcess("--database-url", empty_url) as manager:
        while "retention is off" not in manager.log:  # noqa: ASYNC110 - a thread reads the log
            await asyncio.sleep(0.05)
        async with httpx2.AsyncClient(base_url=manager.url, timeout=15) as http, session(empty_url) as observer:
            assert (await http.get("/v1/retention")).json() == {"default": NEVER, "byName": {}, "archive": False}
            assert await observer.fetchval("SELECT count(*) FROM ended_jobs") == 0
            wanted = {"default": NEVER | {"failedSeconds": 10 * 86400}}
            assert (await http.put("/v1/retention", json=wanted)).status_code == 200
            while await observer.fetchval("SELECT count(*) FROM jobs") > 30:  # noqa: ASYNC110 - rows change silently
                await asyncio.sleep(0.05)
            assert await ages(observer, "a job", "FAILED") == [2, 4, 6, 8]
            assert not await violations(observer)


async def test_the_rules_are_set_over_http(http_of_own: httpx2.AsyncClient) -> None:
    """All rules at once. Invalid rules are refused and change nothing."""
    assert (await http_of_own.get("/v1/retention")).json() == {"default": DEFAULT, "byName": {}, "archive": False}
    wanted = {"default": NEVER, "byName": {"nightly": DEFAULT | {"keepLast": 3}, 'a "name"': NEVER}, "archive": True}
    response = await http_of_own.put("/v1/retention", json=wanted)
    assert (response.status_code, response.json()) == (200, wanted)
    for invalid in (
        {},
        {"default": DEFAULT | {"completedSeconds": 0}},
        {"default": DEFAULT | {"completedSeconds": "P30D"}},
        {"default": DEFAULT | {"keepLast": -1}},
        {"default": DEFAULT | {"keepLast": 1001}},
        {"default": DEFAULT | {"keepFirst": 1}},
        {"default": DEFAULT, "byName": {"x": DEFAULT}},
        {"default": DEFAULT, "byName": {"x" * 51: DEFAULT}},
        {"default": DEFAULT, "byName": {f"job {number}": DEFAULT for number in range(1001)}},
    ):
        refused(await http_of_own.put("/v1/retention", json=invalid), 400, "VALIDATION_ERROR")
    assert (await http_of_own.get("/v1/retention")).json() == wanted


async def command(*arguments: str) -> tuple[int | None, Any, str]:
    """Run ``jobnik-manager retention``. Return its exit code, its output as JSON, and its error output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JOBNIK_MANAGER_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "reference_manager", "retention", *arguments),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, error = await process.communicate()
    return process.returncode, json.loads(output or "null"), error.decode()


async def test_the_rules_are_set_by_commands(database_url: str) -> None:
    """`set` changes what is given. A new rule of a name begins with the values of the rule of all jobs."""
    url = ("--database-url", database_url)
    assert await command("show", *url) == (0, {"default": DEFAULT, "byName": {}, "archive": False}, "")
    changed = DEFAULT | {"failedSeconds": None, "keepLast": 5}
    result = await command("set", *url, "--failed", "never", "--keep-last", "5")
    assert result == (0, {"default": changed, "byName": {}, "archive": False}, "")
    nightly = changed | {"completedSeconds": 43200}
    result = await command("set", *url, "--job-name", "nightly", "--completed", "PT12H")
    assert result == (0, {"default": changed, "byName": {"nightly": nightly}, "archive": False}, "")
    assert await command("unset", *url, "--job-name", "nightly") == (
        0,
        {"default": changed, "byName": {}, "archive": False},
        "",
    )
    code, _, error = await command("unset", *url, "--job-name", "nightly")
    assert (code, "There is no rule" in error) == (1, True)


async def test_two_managers_one_of_which_is_killed_delete_exactly_what_is_due(
    start_manager: Callable[..., ManagerProcess], connection: Session
) -> None:
    """Under load, with a kill in the middle: every due job is deleted, with its tasks, and nothing else is."""
    first, second = start_manager(), start_manager()
    due = await add_ended(connection, "a job", "COMPLETED", [40 * DAY] * 2000)
    kept = await add_ended(connection, "a job", "COMPLETED", [20 * DAY] * 50)
    kept += await add_ended(connection, "a job", "FAILED", [40 * DAY] * 50)
    async with httpx2.AsyncClient(base_url=second.url, timeout=30) as http:
        client = Client(http)
        await connection.execute("UPDATE retention_state SET clock = now(), next_pass = now()")
        killed = False
        while left := await connection.fetchval("SELECT count(*) FROM jobs WHERE id = ANY ($1)", due):
            job = await client.job()
            await client.tasks(await client.stage(job, "work"))
            await client.settle(await client.claimed("work"))
            if left < 1500 and not killed:
                first.process.kill()
                killed = True
                await connection.execute("UPDATE retention_state SET next_pass = now()")
        while await connection.fetchval("SELECT count(*) FROM deleted_stages"):  # noqa: ASYNC110 - rows change silently
            await asyncio.sleep(0.05)
    assert await connection.fetchval("SELECT count(*) FROM jobs WHERE id = ANY ($1)", kept) == len(kept)
    left = await connection.fetchrow("""
        SELECT count(*) AS tasks, (SELECT sum(stages_total) FROM jobs) AS stages,
            (SELECT count(*) FROM jobs WHERE name <> 'a job' OR ended_at > now() - interval '1 day') AS new
        FROM tasks
    """)
    assert left is not None
    assert left["tasks"] == 2 * len(kept) + left["new"]
    assert not await violations(connection)


async def test_the_guide_works_line_by_line(
    start_manager: Callable[..., ManagerProcess], database_url: str, connection: Session, tmp_path: Path
) -> None:
    """Every command of the guide succeeds, in order, and sets what the guide says."""
    url = start_manager().url
    guide = (ROOT / "docs/how-to/keep-or-delete-old-jobs.md").read_text(encoding="utf-8")
    blocks: list[str] = re.findall(r"(?:^    .+\n)+", guide, re.MULTILINE)
    (archived,) = re.findall(r"archive read (\S+)", guide)
    async with ArchiveFile(Folder(tmp_path)) as file:
        await file.write("{}")
        await file.end_line()
        await file.store(archived)
    commands = "".join(blocks).replace("http://127.0.0.1:8080", url)
    commands = commands.replace("postgresql://user:password@host:5432/database", database_url)
    commands = commands.replace("/var/lib/jobnik/archive", str(tmp_path))
    environment = clean_environment(keep_python=True)
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    process = await asyncio.create_subprocess_exec(
        *("bash", "-e", "-c", f"set -o pipefail\n{commands}"), env=environment, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    assert output.decode().endswith(f'"archive": true\n}}\n{archived}\n{{}}\n')
    assert len(blocks) == 9
    rows = await connection.fetch("SELECT * FROM retention_rules ORDER BY job_name")
    assert [tuple(row) for row in rows] == [("", 14 * DAY, None, 14 * DAY, 5)]
