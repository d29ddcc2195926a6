"""Claims and reports that share a batch or wait for a lock still have the correct effect."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest
from reference_manager.domain.commands import Report
from reference_manager.domain.states import JobStatus, Outcome, Priority, TaskStatus
from reference_manager.engine.dispatch.reports import settle
from reference_manager.engine.records.jobs import Jobs
from reference_manager.store.pool import Database, sql

from tests.support.claims import ClaimedTask, claim_statement, claimed_tasks
from tests.support.sessions import ROW_LOCKS, Session, job_of, wait_for_lock_waiters
from tools.backlog import add_backlog, without_claims

LEASE = timedelta(seconds=1)
OUTCOMES = {
    Outcome.FAILED: TaskStatus.RETRIED,
    Outcome.SNOOZED: TaskStatus.PENDING,
    Outcome.COMPLETED: TaskStatus.COMPLETED,
}
"""The outcomes, each with the status that it gives a task."""
HALT_CLAIMS = """
    CREATE FUNCTION halt() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF current_query() LIKE '%claim_tasks%' THEN
            PERFORM pg_advisory_xact_lock(1);
        END IF;
        RETURN OLD;
    END
    $$;
    CREATE TRIGGER halt BEFORE DELETE ON waiting_tasks FOR EACH ROW EXECUTE FUNCTION halt();
"""


async def claim(database: Database, limit: int = 1) -> Sequence[ClaimedTask]:
    """Claim tasks of the type "late" for the worker "holder"."""
    async with database.connection() as connection:
        return claimed_tasks(await connection.fetch(*claim_statement("late", limit, "holder", LEASE)))


async def test_a_report_without_the_lease_does_not_affect_the_holders_report(database: Database) -> None:
    """In one batch, a report by a worker that does not hold the lease is refused and the holder's report counts."""
    await add_backlog(database, "late", len(OUTCOMES))
    for outcome, target in OUTCOMES.items():
        (task,) = await claim(database)
        other, holder = (
            Report(task.task, task.lease, worker, outcome, delay=timedelta(hours=1)) for worker in ("other", "holder")
        )
        async with database.connection() as connection:
            verdicts, _ = await settle(connection, [other, holder])
        assert [verdict.target for verdict in verdicts] == [None, target]


async def test_a_batch_completes_each_task_with_the_first_report_of_its_holder(database: Database) -> None:
    """Neither the order of the reports nor those beside it matter: repeated, of other workers, without a lease."""
    await add_backlog(database, "late", 8)
    first, second, third = await claim(database, 3)
    async with database.connection() as connection:
        (unleased,) = claimed_tasks(await connection.fetch(*claim_statement("late", 1)))
        reports = [
            (third.task, third.lease, "holder", "3"),
            (first.task, first.lease, "other", "0"),
            (unleased.task, None, None, "4"),
            (second.task, first.lease, "holder", "0"),
            (first.task, first.lease, "holder", "1"),
            (second.task, None, None, "0"),
            (first.task, first.lease, "holder", "0"),
            (second.task, second.lease, "holder", None),
            (second.task, second.lease + 1000, "holder", "0"),
        ]
        (row,) = await connection.fetch(sql.task_complete.sql, *map(list, zip(*reports, strict=True)), None)
        assert row["busy"] is None
        bodies = dict(zip(row["places"], row["bodies"], strict=True))
        assert sorted(bodies) == [1, 3, 5, 8]
        assert [place for place, body in bodies.items() if body is not None] == [3]
        ids = [task.task for task in (first, second, third, unleased)]
        tasks = {task["id"]: task for task in await connection.fetch("SELECT * FROM tasks WHERE id = ANY ($1)", ids)}
    assert [tasks[one]["status"] for one in ids] == ["COMPLETED"] * 4
    assert [tasks[one]["result"] for one in ids] == ["1", None, "3", "4"]


async def test_a_claim_skips_locked_jobs(database: Database, other: Session) -> None:
    """A claim takes the tasks of other jobs meanwhile, and reports that there may be more."""
    locked = [await job_of(other, await add_backlog(database, "late", 2, Priority.HIGH)) for _ in range(2)]
    await add_backlog(database, "late", 1)
    async with other.transaction():
        for job in locked:
            await other.execute("SELECT pg_advisory_xact_lock(job_key($1))", job)
        async with database.connection() as connection:
            taken, more = [await connection.fetch(*claim_statement("late", 9, "holder")) for _ in range(2)]
        assert [(len(row["tasks"]) if row["tasks"] else None, row["more"]) for row in [*taken, *more]] == [
            (1, None),
            (None, True),
            (None, True),
        ]
    async with database.connection() as connection:
        rows = await connection.fetch(*claim_statement("late", 9, "holder"))
    assert [row["more"] for row in rows] == [None, None, False]
    assert len(claimed_tasks(rows)) == 4


@pytest.mark.parametrize("wanted", [1, 9])
@pytest.mark.parametrize("row", ROW_LOCKS)
async def test_a_claim_skips_locked_rows(database: Database, other: Session, row: str, wanted: int) -> None:
    """While a session that is not a manager's, such as a person's, holds rows, claims take the tasks of other jobs."""
    for _ in range(3):
        await add_backlog(database, "late", 1, Priority.HIGH)
    async with other.transaction():
        locked = [await job_of(other, await add_backlog(database, "late", 2, Priority.HIGH)) for _ in range(3)]
        for job in locked:
            await other.execute(ROW_LOCKS[row], job)
        await add_backlog(database, "late", 2)
        assert sum([len(await claim(database, wanted)) for _ in range(5)]) == 5
        async with database.connection() as connection:
            left = await connection.fetch(*claim_statement("late", wanted, "worker"))
        assert [row["more"] for row in left] == [True]
    assert sum([len(await claim(database, wanted)) for _ in range(6)]) == 6


async def test_a_claim_does_not_start_a_stage_that_was_paused_meanwhile(database: Database, other: Session) -> None:
    """A claim that found a stage before its job was paused, and got the lock of the job afterwards, skips it."""
    paused = await job_of(other, await add_backlog(database, "late", 3, Priority.HIGH))
    await add_backlog(database, "late", 2)
    # The claim stops between reading the queue and taking the lock of the first job.
    await other.execute("""
        ALTER FUNCTION job_key RENAME TO key_of_job;
        CREATE FUNCTION job_key(job_id uuid) RETURNS bigint LANGUAGE plpgsql AS $$
        BEGIN
            IF current_query() LIKE '%claim_tasks%' THEN
                PERFORM pg_advisory_xact_lock(1);
            END IF;
            RETURN key_of_job(job_id);
        END
        $$;
    """)
    await other.execute("SELECT pg_advisory_lock(1)")
    claiming = asyncio.create_task(claim(database, 4))
    await wait_for_lock_waiters(other)
    await Jobs(database, without_claims(database)).set_status(paused, JobStatus.PAUSED)
    await other.execute("SELECT pg_advisory_unlock(1)")
    assert len(await claiming) == 2
    assert await other.fetchval("SELECT status FROM stages WHERE job_id = $1", paused) == "PENDING"
    await Jobs(database, without_claims(database)).set_status(paused, JobStatus.PENDING)
    assert len(await claim(database, 9)) == 3


async def test_a_claim_and_the_sweep_of_an_aborted_stage_do_not_deadlock(database: Database, other: Session) -> None:
    """A claim that is under way when its stage is aborted and the sweep that follows both finish."""
    job = await job_of(other, await add_backlog(database, "late", 2))
    await claim(database)
    await other.execute(HALT_CLAIMS)
    async with database.connection() as sweeper:
        await other.execute("SELECT pg_advisory_lock(1)")
        claiming = asyncio.create_task(claim(database))
        await wait_for_lock_waiters(other)
        await Jobs(database, without_claims(database)).set_status(job, JobStatus.ABORTED)
        stages = [row["stage_id"] for row in await sweeper.fetch(sql.aborted_stages.sql, [], 10)]
        sweeping = asyncio.create_task(sql.tasks_sweep(sweeper, stages=stages, limit=10))
        await wait_for_lock_waiters(other, 2)
        await other.execute("SELECT pg_advisory_unlock(1)")
        await asyncio.gather(claiming, sweeping)
    assert await other.fetchval("SELECT count(*) FROM tasks WHERE status <> 'ABORTED'") == 0
    assert await other.fetchval("SELECT count(*) FROM waiting_tasks") == 0
