"""The database cost of claims and reports: index scans of bounded length, whatever else the tables contain."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from reference_manager.domain.commands import NO_TRACE
from reference_manager.domain.states import JobStatus, Priority
from reference_manager.engine.dispatch.claims import NO_CLAIM
from reference_manager.engine.records.jobs import Jobs
from reference_manager.store.lock_waits import NO_WAIT
from reference_manager.store.pool import Connection, Database, sql

from tests.support.claims import claim_statement, claimed_tasks
from tests.support.sessions import job_of
from tests.support.statistics import ROWS, touched
from tools.backlog import add_backlog, without_claims


def claim(stage_type: str, limit: int) -> tuple[Any, ...]:
    """Return the statement and arguments of a claim without leases."""
    return claim_statement(stage_type, limit)


def lease(stage_type: str, limit: int) -> tuple[Any, ...]:
    """Return the statement and arguments of a claim under leases."""
    return claim_statement(stage_type, limit, "guard")


def complete(ids: Sequence[UUID]) -> tuple[Any, ...]:
    """Return the statement and arguments that complete tasks claimed without leases."""
    none = [None] * len(ids)
    return sql.task_complete.sql, ids, none, none, none, None


def settle(ids: Sequence[UUID]) -> tuple[Any, ...]:
    """Return the statement and arguments that complete the same tasks in the general way."""
    none = [None] * len(ids)
    return sql.task_settle.sql, ids, none, none, ["COMPLETED"] * len(ids), none, none, [True] * len(ids), none, none


@pytest.mark.timeout(180)  # writes fifty thousand rows
async def test_the_cost_of_a_claim_does_not_depend_on_other_rows(database: Database) -> None:
    """A long backlog, many finished tasks and busy stages of higher priority do not lengthen the scan of a claim."""
    async with database.connection() as connection:
        await connection.execute("SET idle_session_timeout = 0")  # other connections write the rows
        await add_backlog(database, "guarded", 10)
        alone = await touched(connection, *claim("guarded", 10))

        finished = await add_backlog(database, "guarded", 20_000, Priority.VERY_HIGH)
        await connection.execute(
            """
            WITH finished AS (
                UPDATE tasks SET status = 'COMPLETED', outcome = 'COMPLETED', start_time = now(), end_time = now()
                WHERE seq % 4 > 0 AND stage_id = $1 RETURNING seq
            )
            DELETE FROM waiting_tasks WHERE stage_id = $1 AND seq IN (SELECT seq FROM finished)
            """,
            finished,
        )
        await add_backlog(database, "guarded", 20_000, Priority.VERY_LOW)
        for _ in range(200):
            await add_backlog(database, "guarded", 1, Priority.VERY_HIGH)
        # All tasks of the urgent stages become busy, so that only the backlog of the lowest priority is left.
        await connection.fetch(*claim("guarded", 5200))
        for _ in range(3):
            await connection.fetch(*claim("guarded", 1))
        await connection.execute("ANALYZE")

        crowded = await touched(connection, *claim("guarded", 10))
        assert crowded <= alone + 10


@pytest.mark.timeout(180)  # writes twenty thousand rows
@pytest.mark.parametrize("statistics", ["of an empty table", "of the backlog"])
async def test_a_backlog_in_one_stage_is_never_scanned(database: Database, statistics: str) -> None:
    """Neither plans made for empty tables nor plans made with fresh statistics read more rows than needed."""
    async with database.connection() as connection:
        if statistics == "of an empty table":
            await connection.execute("ANALYZE")
            await connection.fetch(*claim("guarded", 1))
            await connection.fetch(*complete([]))
            await connection.fetch(*settle([]))
        await add_backlog(database, "guarded", 20_000)
        if statistics == "of the backlog":
            await connection.execute("ANALYZE")
        for _ in range(3):
            for report in (complete, settle):
                ids = [held.task for held in claimed_tasks(await connection.fetch(*claim("guarded", 1)))]
                assert await touched(connection, *report(ids)) < 20
            assert await touched(connection, *claim("guarded", 1)) < 20


@pytest.mark.timeout(180)  # writes twenty thousand rows
@pytest.mark.parametrize("report", [complete, settle])
async def test_the_cost_of_a_report_does_not_depend_on_the_stage(
    database: Database, report: Callable[[Sequence[UUID]], tuple[Any, ...]]
) -> None:
    """The cost of a report does not grow with the number of tasks in the stage."""
    async with database.connection() as connection:

        async def settle_ten() -> int:
            ids = [held.task for held in claimed_tasks(await connection.fetch(*claim("guarded", 10)))]
            return await touched(connection, *report(ids))

        await add_backlog(database, "guarded", 30)
        alone = [await settle_ten() for _ in range(2)][-1]
        await connection.execute("DELETE FROM jobs")
        await add_backlog(database, "guarded", 20_000)
        assert [await settle_ten() for _ in range(3)][-1] <= alone + 10


async def test_a_claim_without_work_reads_no_rows(database: Database) -> None:
    """Stages without waiting tasks leave the queue, so that the claims of idle workers do not scan them."""
    async with database.connection() as connection:
        for _ in range(50):
            await add_backlog(database, "guarded", 1)
        assert len(claimed_tasks(await connection.fetch(*claim("guarded", 100)))) == 50
        assert await touched(connection, *claim("guarded", 1)) == 0


@pytest.mark.timeout(180)  # writes twenty thousand rows
@pytest.mark.parametrize("statistics", ["of empty tables", "of full tables"])
async def test_progress_reads_only_tasks_that_report_it(database: Database, statistics: str) -> None:
    """The progress of a stage or job costs one row for each task that reports its own, whatever else waits or runs."""
    async with database.connection() as connection:

        async def cost(stage: UUID, job: UUID) -> list[int]:
            readings = ((sql.stage_get.sql, False, True, stage), (sql.job_get.sql, False, True, job))
            for _ in range(6):  # the server settles on its plans after this many runs
                for reading in readings:
                    await connection.fetch(*reading)
            return [await touched(connection, *reading) for reading in readings]

        if statistics == "of empty tables":
            await connection.execute("ANALYZE")
            await cost(UUID(int=0), UUID(int=0))
        await add_backlog(database, "busy", 2_000)
        await connection.fetch(*lease("busy", 2_000))
        await connection.execute("UPDATE leases SET fraction = 0.5")
        stage = await add_backlog(database, "guarded", 20_000)
        claimed = claimed_tasks(await connection.fetch(*lease("guarded", 100)))
        reporting = claimed[:5]
        progress, none = ['{"fraction": 0.5}'] * len(reporting), [None] * len(reporting)
        heartbeat = ([held.task for held in reporting], [held.lease for held in reporting], progress, none)
        await connection.fetch(sql.leases_renew.sql, ["guard"] * len(reporting), *heartbeat)
        if statistics == "of full tables":
            await connection.execute("ANALYZE")
        job = await job_of(connection, stage)
        assert max(await cost(stage, job)) < len(reporting) + 10
        body = await connection.fetchval("SELECT stage_progress(stage) FROM stages AS stage WHERE id = $1", stage)
        assert body.startswith(',"progress":{"fraction":0.000125,"etaSeconds":')


def job_tree(key: str | None, stages: int = 2, tasks: int = 2) -> tuple[Any, ...]:
    """Return the statement and arguments that create a job with this many stages and tasks in each stage."""
    none = [None] * stages
    job = "a job", "MEDIUM", "{}", "{}", NO_TRACE.traceparent, None, key, None
    statuses = ["PENDING", *["CREATED"] * (stages - 1)]
    datas = ["{}"] * stages
    stage = ["tree"] * stages, statuses, datas, datas, [1] * stages, none, [NO_TRACE.traceparent] * stages, none
    return sql.job_create.sql, *job, *stage, 3, [f"[{', '.join(['{}'] * tasks)}]"] * stages, none, none, NO_WAIT


async def lifecycle_costs(connection: Connection, database: Database) -> dict[str, int]:
    """Take two tasks through their lifecycle in every way; return the rows touched by each statement."""
    key = str(await connection.fetchval("SELECT count(*) FROM job_keys"))
    costs = {
        "create": await touched(connection, *job_tree(key)),
        "key is taken": await touched(connection, *job_tree(key)),
    }
    stage_id = await add_backlog(database, "guarded", 2)
    more = sql.task_add.sql, stage_id, 3, "[{}, {}]", None, None, NO_TRACE.traceparent, None, False, NO_WAIT, *NO_CLAIM
    costs["add"] = await touched(connection, *more)
    ids = [held.task for held in claimed_tasks(await connection.fetch(*claim("guarded", 4)))]
    await connection.fetch(*settle([ids.pop(), ids.pop()]))
    none = [None, None]
    delays = [None, timedelta(microseconds=1)]
    back = (ids, none, none, ["RELEASED", "FAILED"], none, none, [True, True], delays, none)
    costs["hand back"] = await touched(connection, sql.task_settle.sql, *back)
    costs["due"] = await touched(connection, sql.delayed_due.sql, [], 10)
    costs["wake"] = await touched(connection, sql.delayed_wake.sql, ids, False)  # noqa: FBT003 - a parameter of SQL
    costs["claim"] = await touched(connection, *lease("guarded", 1))
    held = claimed_tasks(await connection.fetch(*lease("guarded", 2)))
    heartbeat = ([one.task for one in held], [one.lease for one in held], ["{}"] * len(held), ["{}"] * len(held))
    costs["heartbeat"] = await touched(connection, sql.leases_renew.sql, ["guard"] * len(held), *heartbeat)
    costs["sweep"] = await touched(connection, sql.leases_expired.sql, [], 10)
    stage_id = await connection.fetchval("SELECT stage_id FROM tasks WHERE id = $1", ids[0])
    costs["deltas"] = await touched(connection, sql.deltas_stages.sql, [], 10)
    costs["fold"] = await touched(connection, sql.deltas_fold.sql, [stage_id], False)  # noqa: FBT003 - as above
    running = await connection.fetch("SELECT task_id, id FROM leases WHERE stage_id = $1 ORDER BY id", stage_id)
    for number, (task_id, lease_id) in enumerate(running):
        done = ([task_id], [lease_id], ["guard"], ["COMPLETED"], [None], [None], [True], [None], [None])
        costs[f"end {number}"] = await touched(connection, sql.task_settle.sql, *done)
    assert await connection.fetchval("SELECT status FROM stages WHERE id = $1", stage_id) == "COMPLETED"
    jobs = Jobs(database, without_claims(database))
    doomed = await job_of(connection, await add_backlog(database, "doomed", 2))
    await jobs.set_status(doomed, JobStatus.ABORTED)
    costs["aborted"] = await touched(connection, sql.aborted_stages.sql, [], 10)
    stages = [row["stage_id"] for row in await connection.fetch(sql.aborted_stages.sql, [], 10)]
    costs["sweep aborted"] = await touched(connection, sql.tasks_sweep.sql, stages, 10)
    costs["delete"] = await touched(connection, sql.job_delete.sql, doomed)
    costs["deleted"] = await touched(connection, sql.deleted_stages.sql, [], 10)
    costs["remove deleted"] = await touched(connection, sql.tasks_remove.sql, stages, 10)
    return costs


@pytest.mark.timeout(180)  # writes sixty thousand rows
async def test_plans_for_small_tables_work_for_large_ones(database: Database) -> None:
    """Plans made while there are few jobs touch no more rows after twenty thousand jobs."""
    async with database.connection() as connection:
        await connection.execute("ANALYZE")
        alone = [await lifecycle_costs(connection, database) for _ in range(8)][-1]
        await connection.execute("""
            WITH job AS (
                INSERT INTO jobs
                    (name, status, priority, data, user_metadata, traceparent, stages_total, stages_completed)
                SELECT 'a job', 'COMPLETED', 'MEDIUM', '{}', '{}', '', 1, 1 FROM generate_series(1, 20000) RETURNING id
            ), stage AS (
                INSERT INTO stages
                    (job_id, position, type, status, data, user_metadata, priority, job_open, traceparent,
                    completed, start_time, end_time)
                SELECT id, 1, 'guarded', 'COMPLETED', '{}', '{}', 'MEDIUM', true, '', 1, now(), now()
                FROM job RETURNING id
            )
            INSERT INTO tasks
                (stage_id, status, outcome, max_attempts, start_time, end_time, data, user_metadata, traceparent)
            SELECT id, 'COMPLETED', 'COMPLETED', 3, now(), now(), '{}', '{}', '' FROM stage
        """)
        crowded = await lifecycle_costs(connection, database)
        assert {name: cost for name, cost in crowded.items() if cost > alone[name] + 10} == {}


MANY = 500
"""The number of tasks in a claim, and of reports in a request."""


async def batch_costs(connection: Connection, jobs: int) -> dict[str, int]:
    """Take many tasks through their lifecycle in both ways; return the rows touched by each statement."""
    key = str(await connection.fetchval("SELECT count(*) FROM job_keys"))
    costs = {"create": await touched(connection, *job_tree(key, 5, MANY // 5))}
    costs["key is taken"] = await touched(connection, *job_tree(key, 5, MANY // 5))
    stage_id = await connection.fetchval("SELECT id FROM stages WHERE type = 'tree' AND status = 'PENDING'")
    tasks = f"[{', '.join(['{}'] * MANY)}]"
    more = sql.task_add.sql, stage_id, 3, tasks, None, None, NO_TRACE.traceparent, None, False, NO_WAIT, *NO_CLAIM
    costs["add"] = await touched(connection, *more)
    await connection.execute("DELETE FROM jobs WHERE id = (SELECT job_id FROM stages WHERE id = $1)", stage_id)
    for report in (complete, settle):
        for _ in range(jobs):
            await connection.fetch(*job_tree(None, 1, MANY // jobs + 1))
        async with connection.transaction():
            before = await connection.fetchval(ROWS)
            ids = [held.task for held in claimed_tasks(await connection.fetch(*claim("tree", MANY)))]
            costs["claim"] = await connection.fetchval(ROWS) - before
        assert len(ids) == MANY
        costs[report.__name__] = await touched(connection, *report(ids))
        await connection.fetch(*claim("tree", MANY))
        left = await connection.fetch("SELECT id FROM tasks WHERE status = 'IN_PROGRESS'")
        await connection.fetch(*settle([row["id"] for row in left]))
    return costs


@pytest.mark.timeout(180)  # writes thousands of jobs, one by one
@pytest.mark.parametrize("statistics", ["of empty tables", "of an idle hour"])
@pytest.mark.parametrize(
    ("jobs", "most"),
    [
        (1, {"create": 1.2, "key is taken": 0.1, "add": 1.1, "claim": 3.1, "complete": 3.1, "settle": 8.1}),
        (250, {"create": 1.2, "key is taken": 0.1, "add": 1.1, "claim": 8, "complete": 4, "settle": 15}),
    ],
)
async def test_a_large_request_touches_a_fixed_number_of_rows_per_task(
    database: Database, statistics: str, jobs: int, most: dict[str, float]
) -> None:
    """The cost of a task in a large request is bounded, even while hundreds of other stages are in progress."""
    async with database.connection() as connection:
        await connection.execute("ANALYZE")
        await batch_costs(connection, 1)
        if statistics == "of an idle hour":
            await batch_costs(connection, 250)
            await batch_costs(connection, 250)
            assert await connection.fetchval("SELECT count(*) FROM stages WHERE status <> 'COMPLETED'") == 0
            await connection.execute("ANALYZE")
        for _ in range(300):
            await add_backlog(database, "others", 1)
        costs = await batch_costs(connection, jobs)
        assert {name: cost / MANY for name, cost in costs.items() if cost > MANY * most[name]} == {}
