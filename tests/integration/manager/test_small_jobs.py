"""The cost of jobs with a single task: PostgreSQL runs a few statements for each, and writes a few kilobytes."""

from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import NamedTuple

import asyncpg
import pytest
from reference_manager.domain.commands import NO_TRACE, Claim, NewJob, NewStage, NewTasks, Report
from reference_manager.domain.states import Outcome, Priority
from reference_manager.embedded import EmbeddedPostgres
from reference_manager.engine import metrics
from reference_manager.engine.engine import Engine
from reference_manager.store.migrate import migrate
from reference_manager.store.pool import Database

from tools.data_folder import temporary_data_folder

SETTINGS = {
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.track": "all",
    "autovacuum": "off",  # its own writes would be measured, too
}
MINUTE = timedelta(minutes=1)
JOBS = 100
CLAIM_SIZE = 50


class Cost(NamedTuple):
    """What PostgreSQL did."""

    statements: float
    """The number of executed statements, including those of functions, triggers and foreign keys."""
    written: float
    """The number of bytes that it wrote to its log."""

    def since(self, before: "Cost") -> "Cost":
        """Return the cost of each job since an earlier time."""
        return Cost((self.statements - before.statements) / JOBS, (self.written - before.written) / JOBS)


class Meter:
    """Reads what a server has done.

    Args:
        connection: A connection to a database with the extension pg_stat_statements.
    """

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection

    async def read(self) -> Cost:
        """Return the cost of everything so far, except of this."""
        row = await self._connection.fetchrow("""
            SELECT coalesce(sum(calls), 0)::float8, (pg_current_wal_insert_lsn() - '0/0')::float8
            FROM public.pg_stat_statements WHERE query NOT LIKE '%pg_stat_statements%'
        """)
        assert row is not None
        return Cost(*row)


@pytest.fixture
async def metered() -> AsyncGenerator[tuple[Engine, Meter]]:
    """An engine on a server of its own that counts statements."""
    with (
        temporary_data_folder(in_memory=True) as folder,
        EmbeddedPostgres(folder, durable=False, settings=SETTINGS) as server,
    ):
        await migrate(server.url)
        connection = await asyncpg.connect(server.url)
        try:
            await connection.execute("CREATE EXTENSION pg_stat_statements SCHEMA public")
            async with Database.connect(server.url, connections=2, acquire_timeout=MINUTE) as database:
                engine = Engine(database, stale_after=MINUTE)
                yield engine, Meter(connection)
                engine.queue.close()
        finally:
            await connection.close()


async def create(engine: Engine, stages: int) -> None:
    """Create jobs of this many stages with one task each, one by one."""
    stage = NewStage("small", "{}", "{}", start_as_waiting=False, trace=NO_TRACE)
    for _ in range(JOBS):
        trees = [(stage, NewTasks(1, "[{}]", NO_TRACE))] * stages
        await engine.jobs.create(NewJob("a job", "{}", Priority.MEDIUM, "{}", NO_TRACE, stages=trees))


async def work(engine: Engine) -> int:
    """Claim and complete what is there. Return the number of completed tasks."""
    completed = 0
    while parts := await engine.queue.claim("small", Claim("me", CLAIM_SIZE, MINUTE, minimal=True)):
        reports = [
            Report(task, lease, "me", Outcome.COMPLETED, result=None)
            for part in parts
            for task, lease in zip(part.task_ids, part.lease_ids, strict=True)
        ]
        await engine.queue.settle(reports)
        completed += len(reports)
    return completed


async def test_a_job_of_one_task_takes_few_statements(metered: tuple[Engine, Meter]) -> None:
    """Six statements create it. Its share in a claim and a report of fifty is below one. More stages add none."""
    engine, meter = metered
    await create(engine, 1)  # the driver asks about types once for each connection
    assert await work(engine) == JOBS

    before = await meter.read()
    await create(engine, 1)
    created = await meter.read()
    assert created.since(before).statements == 6
    assert created.since(before).written < 2_500
    assert await work(engine) == JOBS
    assert (worked := await meter.read()).since(created).statements < 1
    assert worked.since(created).written < 3_500

    await create(engine, 3)
    assert (await meter.read()).since(worked).statements == 6 + 2  # a foreign key is checked for each stage
    assert await work(engine) == 3 * JOBS


async def test_a_completion_in_a_nearly_empty_queue_takes_one_statement(database: Database) -> None:
    """The manager sends the short statement, which cannot complete the last task of a stage, less and less often."""
    engine = Engine(database, stale_after=MINUTE)
    await create(engine, 1)
    before = statements()
    for _ in range(JOBS):
        (part,) = await engine.queue.claim("small", Claim("me", 1, MINUTE))
        await engine.queue.settle([Report(part.task_ids[0], part.lease_ids[0], "me", Outcome.COMPLETED, result=None)])
    # The 1st, 3rd, 7th, 15th, 31st, 47th … completion takes two.
    assert [after - earlier for earlier, after in zip(before, statements(), strict=True)] == [9, JOBS]


def statements() -> list[float]:
    """Return how many short statements and how many others for reports this process has sent."""
    name = f"{metrics.PREFIX}statement_duration_seconds_count"
    counts = [
        metrics.REGISTRY.get_sample_value(name, {"statement": statement})
        for statement in (metrics.COMPLETE, metrics.SETTLE)
    ]
    return [count or 0 for count in counts]
