"""What a manager asks PostgreSQL while there is nothing to do."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from asyncpg.connection import LoggedQuery
from reference_manager.domain.commands import NO_TRACE, NewTasks
from reference_manager.engine.engine import Engine
from reference_manager.engine.maintenance import delayed_tasks
from reference_manager.engine.maintenance.delayed_tasks import LONGEST_REST, DelayedTasks
from reference_manager.engine.maintenance.maintenance_task import MaintenanceTask
from reference_manager.store.pool import Database

from tests.support.claims import claim_statement
from tests.support.sessions import Session
from tools.backlog import add_backlog, without_claims

STATEMENTS = {
    "lease sweeper": 1,
    "delayed tasks": 1,
    "counter folding": 1,
    "aborted tasks": 1,
    "deleted jobs": 1,
    "stale workers": 3,
    "idempotency keys": 3,
    "retention": 1,
}
"""The number of statements of a round that finds no work."""
ALL_IN_A_SECOND = 5.7
"""The number of statements in a second of all maintenance tasks of a manager that does nothing else."""


DELAY = """
    WITH moved AS (
        DELETE FROM waiting_tasks WHERE task_id IN (SELECT task_id FROM waiting_tasks ORDER BY seq LIMIT $1) RETURNING *
    )
    INSERT INTO delayed_tasks (task_id, stage_id, seq, due) SELECT task_id, stage_id, seq, now() + $2 FROM moved
"""
READ_ROWS = "SELECT sum(idx_tup_fetch + seq_tup_read) FROM pg_stat_user_tables"


async def statements(database: Database, task: MaintenanceTask) -> int:
    """Do one round, and return the number of its statements."""
    number = 0

    def count(_logged: LoggedQuery) -> None:
        nonlocal number
        number += 1

    async with database.maintenance_connection() as connection:
        await task.run_once(connection)  # the driver asks about the types of the first statement's columns
        with connection.query_logger(count):
            await task.run_once(connection)
            await asyncio.sleep(0)  # the driver logs statements in the next turn of the event loop
    return number


async def test_maintenance_of_an_idle_manager_is_cheap(database: Database) -> None:
    """Each maintenance task asks for work with one statement, which takes no lock, or asks rarely."""
    tasks = {task.name: task for task in Engine(database, stale_after=timedelta(minutes=30)).maintenance}
    found = {name: await statements(database, task) for name, task in tasks.items()}
    assert found == STATEMENTS
    pauses = {name: LONGEST_REST if name == "delayed tasks" else task.pause for name, task in tasks.items()}
    assert sum(found[name] / pauses[name].total_seconds() for name in tasks) == pytest.approx(ALL_IN_A_SECOND)


async def test_questions_about_work_use_indexes(database: Database, other: Session) -> None:
    """With thousands of delayed tasks and leases that are not due, a question reads a few rows."""
    await add_backlog(database, "work", 6000)
    await other.execute(DELAY, 3000, timedelta(hours=1))
    await other.fetch(*claim_statement("work", 3000, "worker"))
    for routine in ("leases_are_due", "delayed_wait"):
        reads: list[int] = []
        for _ in range(2):
            await other.fetchval(f"SELECT {routine}()")
            await other.execute("SELECT pg_stat_force_next_flush()")
            reads.append(await other.fetchval(READ_ROWS))
        assert reads[1] - reads[0] < 10, routine


async def test_a_manager_does_not_miss_the_tasks_that_it_delays(
    database: Database, other: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It wakes its own delayed tasks, however rarely it asks for those of other managers."""
    stage = await add_backlog(database, "work", 0)
    engine = Engine(database, stale_after=timedelta(minutes=30))
    monkeypatch.setattr(delayed_tasks, "LONGEST_REST", timedelta(hours=1))
    async with rounds_of(database, DelayedTasks(engine.queue.handover)) as rounds:
        await rounds.get()
        await engine.tasks.add(stage, NewTasks(1, "[{}]", NO_TRACE, options='[{"delaySeconds": 0.5}]'))
        while not await other.fetchval("SELECT count(*) FROM waiting_tasks"):
            await rounds.get()


@pytest.mark.parametrize("known", [0, 1])
async def test_a_task_that_another_manager_delays_is_found(database: Database, other: Session, known: int) -> None:
    """Whatever a manager knew before, it soon finds a task that another one has delayed, and that is due earlier."""
    await add_backlog(database, "work", 2)
    await other.execute(DELAY, known, timedelta(hours=1))
    async with rounds_of(database, DelayedTasks(without_claims(database))) as rounds:
        await rounds.get()
        await other.execute(DELAY, 2 - known, -timedelta(seconds=1))
        while await other.fetchval("SELECT count(*) FROM delayed_tasks") > known:
            await rounds.get()


@asynccontextmanager
async def rounds_of(database: Database, task: MaintenanceTask) -> AsyncGenerator[asyncio.Queue[None]]:
    """Run a maintenance task, with an entry of the queue for each round, for half a minute at most."""
    rounds = asyncio.Queue[None]()
    running = asyncio.create_task(task.run(database, lambda: rounds.put_nowait(None)))
    async with asyncio.timeout(30):
        yield rounds
    running.cancel()
