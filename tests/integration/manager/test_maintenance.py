"""Maintenance: a problem with one job does not delay the others."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from time import monotonic
from typing import Any
from uuid import UUID

import httpx2
import pytest
from reference_manager.domain.states import JobStatus
from reference_manager.engine.maintenance import job_maintenance
from reference_manager.engine.maintenance.aborted_tasks import AbortedTasks
from reference_manager.engine.maintenance.counter_folding import CounterFolding
from reference_manager.engine.maintenance.delayed_tasks import DelayedTasks
from reference_manager.engine.maintenance.deleted_jobs import DeletedJobs
from reference_manager.engine.maintenance.job_maintenance import JobMaintenance
from reference_manager.engine.maintenance.lease_sweeper import LeaseSweeper
from reference_manager.engine.maintenance.stale_workers import StaleWorkers
from reference_manager.engine.records.jobs import Jobs
from reference_manager.engine.statistics import read_statistics
from reference_manager.store.pool import Database
from structlog.testing import capture_logs

from tests.support.claims import claim_statement
from tests.support.protocol import Client
from tests.support.sessions import Session, job_of
from tests.support.worker import LeasedWorker
from tools.backlog import add_backlog, without_claims
from tools.manager import ManagerProcess

DELAY_ALL = """
    WITH moved AS (DELETE FROM waiting_tasks RETURNING *)
    INSERT INTO delayed_tasks (task_id, stage_id, seq, due)
    SELECT task_id, stage_id, seq, now() - interval '1 minute' FROM moved
"""
START_ALL = "UPDATE stages SET status = 'IN_PROGRESS', start_time = now()"
"""A claim that starts a stage adds to its counts, so that it leaves nothing to fold."""
EXPIRE_ALL = "UPDATE leases SET expires_at = now() - interval '1 minute'"

WORK = {"lease sweeper": "leases", "delayed tasks": "delayed_tasks", "counter folding": "stage_deltas"} | {
    "aborted tasks": "aborted_stages",
    "deleted jobs": "deleted_stages",
}
"""The maintenance tasks of jobs, each with the table of its pending work."""

LAST_STEP = {
    "lease sweeper": "INSERT ON attempts",
    "delayed tasks": "INSERT ON waiting_tasks",
    "counter folding": "UPDATE ON stages",
    "aborted tasks": "UPDATE ON tasks",
    "deleted jobs": "DELETE ON tasks",
}
"""For each of them, something that it does to a job."""


def maintenance(database: Database, name: str) -> JobMaintenance:
    """Return a maintenance task by its name."""
    handover = without_claims(database)
    tasks = LeaseSweeper(handover), DelayedTasks(handover), CounterFolding(), AbortedTasks(), DeletedJobs()
    return next(task for task in tasks if task.name == name)


async def make_pending(database: Database, connection: Session, name: str) -> None:
    """Give a maintenance task work in every job."""
    if name in ("lease sweeper", "counter folding"):
        await connection.execute(START_ALL)
        await connection.fetch(*claim_statement("work", 10_000, "worker"))
        await connection.execute(EXPIRE_ALL)
    elif name == "delayed tasks":
        await connection.execute(DELAY_ALL)
    else:
        jobs = Jobs(database, without_claims(database))
        for row in await connection.fetch("SELECT id FROM jobs"):
            await jobs.set_status(row["id"], JobStatus.ABORTED)
            if name == "deleted jobs":
                await jobs.delete(row["id"])


async def pending(connection: Session, name: str) -> set[UUID]:
    """Return the stages with pending work of a maintenance task."""
    return {row["stage_id"] for row in await connection.fetch(f"SELECT stage_id FROM {WORK[name]}")}  # noqa: S608 - the table above


@pytest.mark.parametrize("name", ["lease sweeper", "delayed tasks", "counter folding"])
async def test_a_locked_job_is_skipped(database: Database, other: Session, name: str) -> None:
    """While another session holds the lock of a job, a round does the work of all other jobs, and then its own."""
    stages = [await add_backlog(database, "work", 2) for _ in range(3)]
    await make_pending(database, other, name)
    await other.fetch("SELECT pg_advisory_lock(job_key($1))", await job_of(other, stages[0]))
    task = maintenance(database, name)
    async with database.maintenance_connection() as connection:
        await task.round(connection)
        assert await pending(other, name) == {stages[0]}
        assert (await read_statistics(database)).maintenance_lag[name] > 0
        await other.fetch("SELECT pg_advisory_unlock_all()")
        while await pending(other, name):
            await task.round(connection)
    assert (await read_statistics(database)).maintenance_lag[name] == 0


@pytest.mark.parametrize("name", WORK)
@pytest.mark.parametrize("problem", ["an error", "a locked row"])
async def test_a_job_whose_work_fails_is_skipped(
    database: Database,
    other: Session,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    problem: str,
) -> None:
    """If the work of a job fails, a round does that of all others, logs the job, and tries again after a pause."""
    stages = [await add_backlog(database, "work", 2) for _ in range(3)]
    job = await job_of(other, stages[0])
    await make_pending(database, other, name)
    if problem == "an error":
        owner = "id" if name == "counter folding" else "stage_id"
        wrong = f"{'OLD' if 'INSERT' not in LAST_STEP[name] else 'NEW'}.{owner} = '{stages[0]}'"
        if name == "lease sweeper":
            first = await other.fetchval("SELECT id FROM tasks WHERE stage_id = $1 LIMIT 1", stages[0])
            wrong = f"NEW.task_id = '{first}'"
        await other.execute(f"""
            CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                RAISE 'broken';
            END
            $$;
            CREATE TRIGGER broken BEFORE {LAST_STEP[name]} FOR EACH ROW WHEN ({wrong}) EXECUTE FUNCTION fail()
        """)
    else:
        await other.execute("BEGIN")
        table = "stages" if name == "counter folding" else WORK[name]
        if name in ("aborted tasks", "deleted jobs"):
            table = "tasks"
        owner = "id" if table == "stages" else "stage_id"
        await other.fetch(f"SELECT FROM {table} WHERE {owner} = $1 FOR UPDATE", stages[0])
    task = maintenance(database, name)
    async with database.maintenance_connection() as connection:
        with capture_logs() as logs:
            await task.round(connection)
            await task.round(connection)
        assert await pending(other, name) == {stages[0]}
        (line,) = [line for line in logs if line["log_level"] == "warning"]
        assert (line["task"], line["job_id"], line["retry_seconds"]) == (name, str(job), 1)

        await other.execute("DROP FUNCTION fail CASCADE" if problem == "an error" else "COMMIT")
        now = monotonic()
        monkeypatch.setattr(job_maintenance, "monotonic", lambda: now + 2)
        await task.round(connection)
    assert not await pending(other, name)


async def test_a_lock_that_is_shared_in_turn_is_obtained(
    database: Database, other: Session, connection: Session
) -> None:
    """A job whose lock is never free, because sessions that complete tasks share it in turn, is waited for."""
    stage = await add_backlog(database, "work", 2)
    await make_pending(database, other, "lease sweeper")
    key = await other.fetchval("SELECT job_key($1)", await job_of(other, stage))
    ended = False

    async def share_in_turn() -> None:
        holder, successor = other, connection
        await holder.fetch("SELECT pg_advisory_lock_shared($1)", key)
        while not ended:
            shared = await successor.fetchval("SELECT pg_try_advisory_lock_shared($1)", key)
            await holder.fetch("SELECT pg_advisory_unlock_shared($1)", key)
            if not shared:
                await successor.fetch("SELECT pg_advisory_lock_shared($1)", key)
            holder, successor = successor, holder

    sharing = asyncio.create_task(share_in_turn())
    async with database.maintenance_connection() as sweeper:
        while await sweeper.fetchval("SELECT pg_try_advisory_lock($1)", key):
            await sweeper.fetch("SELECT pg_advisory_unlock($1)", key)
        assert await maintenance(database, "lease sweeper").round(sweeper) == 2
    ended = True
    await sharing


@pytest.mark.parametrize("name", ["lease sweeper", "delayed tasks"])
async def test_a_large_job_takes_turns_with_others(database: Database, other: Session, name: str) -> None:
    """Although thousands of older items of another job are pending, the first pass includes those of a small job."""
    stages = [await add_backlog(database, "work", count) for count in (6000, 1)]
    await make_pending(database, other, name)
    small = await job_of(other, stages[1])
    await other.execute("UPDATE delayed_tasks SET due = now() WHERE stage_id = $1", stages[1])
    await other.execute("UPDATE leases SET expires_at = now() WHERE stage_id = $1", stages[1])
    async with database.maintenance_connection() as connection:
        rows = await maintenance(database, name).pending(connection, [])
    assert len(rows) < 6000
    assert [row["job_id"] for row in rows].count(small) == 1


async def test_aborted_and_deleted_stages_take_turns(database: Database, other: Session) -> None:
    """One transaction handles a share of a large stage and all of the small ones."""
    large, *small = [await add_backlog(database, "work", count) for count in (3000, 1, 1, 1)]
    for name, statement in (
        ("aborted tasks", "SELECT count(*) FROM tasks WHERE stage_id = $1 AND status <> 'ABORTED'"),
        ("deleted jobs", "SELECT count(*) FROM tasks WHERE stage_id = $1"),
    ):
        task = maintenance(database, name)
        if name == "aborted tasks":
            await make_pending(database, other, name)
        else:
            for row in await other.fetch("SELECT id FROM jobs"):
                await Jobs(database, without_claims(database)).delete(row["id"])
        async with database.maintenance_connection() as connection:
            await task.work(connection, await task.pending(connection, []), waits=False)
            assert [await other.fetchval(statement, stage) for stage in small] == [0, 0, 0]
            assert 2000 < await other.fetchval(statement, large) < 3000
            await task.round(connection)
        assert await other.fetchval(statement, large) == 0
        assert not await pending(other, name)


async def test_a_long_round_reports_progress(database: Database, other: Session) -> None:
    """A manager whose maintenance is busy for minutes is not taken for one whose maintenance is stuck."""
    await add_backlog(database, "work", 2500)
    await make_pending(database, other, "aborted tasks")
    task = maintenance(database, "aborted tasks")
    transactions = 0

    def count() -> None:
        nonlocal transactions
        transactions += 1

    task.progress = count
    async with database.maintenance_connection() as connection:
        # A thousand tasks each; the last transaction also finishes the stage.
        assert await task.round(connection) == 2501
    assert transactions == 3


async def test_aborted_jobs_do_not_end_a_round(database: Database, other: Session) -> None:
    """Due tasks of aborted jobs lose their delay, and the due tasks of other jobs return to the queue in that round."""
    aborted = [await add_backlog(database, "work", 1) for _ in range(3)]
    stage = await add_backlog(database, "work", 1)
    await make_pending(database, other, "delayed tasks")
    for each in aborted:
        await Jobs(database, without_claims(database)).set_status(await job_of(other, each), JobStatus.ABORTED)
    async with database.maintenance_connection() as connection:
        await maintenance(database, "delayed tasks").round(connection)
    assert not await pending(other, "delayed tasks")
    assert [row["stage_id"] for row in await other.fetch("SELECT stage_id FROM waiting_tasks")] == [stage]


@pytest.mark.timeout(180)  # waits for a lease of a second to expire, twice
async def test_a_manager_without_free_connections_maintains_other_jobs(
    start_manager: Callable[..., ManagerProcess], connection: Session
) -> None:
    """While a request waits for a locked job, leases of another job expire and its tasks wake."""
    manager = start_manager("--database-connections", "2")
    async with httpx2.AsyncClient(base_url=manager.url, timeout=15) as http:
        client, worker = Client(http), LeasedWorker(http)
        locked = await client.job()
        jobs = {"locked": locked, "other": await client.job()}
        for stage_type, job in jobs.items():
            stage = await client.stage(job, stage_type)
            await client.tasks(stage, 1)
            await worker.claim(stage_type, leaseSeconds=1)
            await client.tasks(stage, 1, delaySeconds=1)
        await connection.fetch("SELECT pg_advisory_lock(job_key($1))", UUID(locked["id"]))
        waiting = asyncio.create_task(http.patch(f"/v1/jobs/{locked['id']}/priority", json={"priority": "LOW"}))

        async def returned(stage_type: str) -> Sequence[int]:
            tasks = list[dict[str, Any]]()
            while len(tasks) < 2:
                tasks += await worker.claim(stage_type, 2, waitSeconds=10)
            return sorted(task["attempts"] for task in tasks)

        assert await returned("other") == [0, 1]
        assert not waiting.done()
        assert (
            await connection.fetchval(
                "SELECT count(*) FROM leases JOIN stages ON stages.id = stage_id AND job_id = $1", UUID(locked["id"])
            )
            == 1
        )
        await connection.fetch("SELECT pg_advisory_unlock_all()")
        assert (await waiting).status_code == 200
        assert await returned("locked") == [0, 1]


async def test_stale_workers_are_forgotten(database: Database, other: Session) -> None:
    """A worker is forgotten after an hour; with an order to drain, after a week, so that it receives the order."""
    await other.execute("""
        INSERT INTO workers (id, stage_types, draining, running, drain_wanted, seen_at)
        SELECT format('%s %s', age, ordered), '{}', false, 0, ordered, now() - age::interval
        FROM unnest(ARRAY['59 minutes', '61 minutes', '6 days', '8 days']) AS age, unnest(ARRAY[false, true]) AS ordered
    """)
    async with database.maintenance_connection() as connection:
        await other.execute("BEGIN")
        await other.fetch("SELECT FROM workers WHERE id = '8 days f' FOR UPDATE")
        assert await StaleWorkers().round(connection) == 3  # the locked one is skipped
        await other.execute("COMMIT")
        assert await StaleWorkers().round(connection) == 1
    left = [row["id"] for row in await other.fetch("SELECT id FROM workers ORDER BY seen_at DESC, id")]
    assert left == ["59 minutes f", "59 minutes t", "61 minutes t", "6 days t"]


async def test_a_failed_round_is_repeated_on_a_new_connection(
    database: Database, other: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the server has ended its connection, a maintenance task continues with another one."""
    stage = await add_backlog(database, "work", 1)
    monkeypatch.setattr(DelayedTasks, "pause", timedelta(milliseconds=1))
    running = asyncio.create_task(maintenance(database, "delayed tasks").run(database, lambda: None))
    sessions = """
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND query LIKE '%delayed_wait%' AND pid <> pg_backend_pid()
    """
    while not await other.fetch(sessions):
        pass
    await make_pending(database, other, "delayed tasks")
    while await pending(other, "delayed tasks"):
        pass
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert [row["stage_id"] for row in await other.fetch("SELECT stage_id FROM waiting_tasks")] == [stage]
