"""What claims and settlements cost the database: index walks of bounded length, whatever lies around."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from reference_manager.domain.commands import NO_TRACE
from reference_manager.domain.states import Priority
from reference_manager.store.pool import Connection, Database, sql

from tests.support.claims import claim_of, in_hand
from tests.support.statistics import ROWS, touched
from tools.backlog import add_backlog


def claim(stage_type: str, limit: int) -> tuple[Any, ...]:
    """A claim without leases, as statement and arguments."""
    return claim_of(stage_type, limit)


def lease(stage_type: str, limit: int) -> tuple[Any, ...]:
    """A claim under leases, as statement and arguments."""
    return claim_of(stage_type, limit, "guard")


def complete(ids: Sequence[UUID]) -> tuple[Any, ...]:
    """Tasks that were claimed without leases are completed, as statement and arguments."""
    none = [None] * len(ids)
    return sql.task_complete.sql, ids, none, none, none


def settle(ids: Sequence[UUID]) -> tuple[Any, ...]:
    """The same on the way for what is not simple."""
    none = [None] * len(ids)
    return sql.task_settle.sql, ids, none, none, ["COMPLETED"] * len(ids), none, none, [True] * len(ids), none, none


@pytest.mark.timeout(60)  # writes fifty thousand rows
async def test_a_claim_touches_few_rows_whatever_lies_around(database: Database) -> None:
    """A long backlog, many finished tasks and busy stages of higher priority do not lengthen a claim's walk."""
    async with database.connection() as connection:
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
        # All tasks of the urgent stages become busy, so that only the backlog of lowest priority is left.
        await connection.fetch(*claim("guarded", 5200))
        for _ in range(3):
            await connection.fetch(*claim("guarded", 1))
        await connection.execute("ANALYZE")

        crowded = await touched(connection, *claim("guarded", 10))
        assert crowded <= alone + 10


@pytest.mark.timeout(60)  # writes twenty thousand rows
@pytest.mark.parametrize("statistics", ["of an empty table", "of the backlog"])
async def test_a_backlog_in_one_stage_is_never_scanned(database: Database, statistics: str) -> None:
    """Neither plans made while the tables were empty nor those made with fresh statistics read more than they need."""
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
                ids = [held.task for held in in_hand(await connection.fetch(*claim("guarded", 1)))]
                assert await touched(connection, *report(ids)) < 20
            assert await touched(connection, *claim("guarded", 1)) < 20


@pytest.mark.timeout(60)  # writes twenty thousand rows
@pytest.mark.parametrize("report", [complete, settle])
async def test_a_report_touches_only_what_it_settles(
    database: Database, report: Callable[[Sequence[UUID]], tuple[Any, ...]]
) -> None:
    """Its cost does not grow with the tasks of the stage."""
    async with database.connection() as connection:

        async def settle_ten() -> int:
            ids = [held.task for held in in_hand(await connection.fetch(*claim("guarded", 10)))]
            return await touched(connection, *report(ids))

        await add_backlog(database, "guarded", 30)
        alone = [await settle_ten() for _ in range(2)][-1]
        await connection.execute("DELETE FROM jobs")
        await add_backlog(database, "guarded", 20_000)
        assert [await settle_ten() for _ in range(3)][-1] <= alone + 10


async def test_a_claim_of_nothing_touches_next_to_nothing(database: Database) -> None:
    """Stages whose tasks have all been claimed leave the queue: idle workers do not walk past them."""
    async with database.connection() as connection:
        for _ in range(50):
            await add_backlog(database, "guarded", 1)
        assert len(in_hand(await connection.fetch(*claim("guarded", 100)))) == 50
        assert await touched(connection, *claim("guarded", 1)) == 0


@pytest.mark.timeout(60)  # writes twenty thousand rows
@pytest.mark.parametrize("statistics", ["of empty tables", "of full tables"])
async def test_progress_is_read_from_what_tells_it(database: Database, statistics: str) -> None:
    """A stage's and a job's progress cost a row for each task that tells its own, whatever else waits or is at work."""
    async with database.connection() as connection:

        async def cost(stage: UUID, job: UUID) -> list[int]:
            readings = ((sql.stage_get.sql, False, True, stage), (sql.job_get.sql, False, True, job))
            for _ in range(6):  # after so many the server settles on its plans
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
        claimed = in_hand(await connection.fetch(*lease("guarded", 100)))
        told = claimed[:5]
        progress, none = ['{"fraction": 0.5}'] * len(told), [None] * len(told)
        beat = ([held.task for held in told], [held.lease for held in told], progress, none)
        await connection.fetch(sql.leases_renew.sql, "guard", *beat)
        if statistics == "of full tables":
            await connection.execute("ANALYZE")
        job = await connection.fetchval("SELECT job_id FROM stages WHERE id = $1", stage)
        assert max(await cost(stage, job)) < len(told) + 10
        body = await connection.fetchval("SELECT stage_progress(stage) FROM stages AS stage WHERE id = $1", stage)
        assert body.startswith(',"progress":{"fraction":0.000125,"etaSeconds":')


def tree(key: str | None, stages: int = 2, tasks: int = 2) -> tuple[Any, ...]:
    """A job with so many stages of so many tasks each, of which the first is open, as statement and arguments."""
    none = [None] * stages
    job = "a job", "MEDIUM", "{}", "{}", NO_TRACE.traceparent, None, key, None
    statuses = ["PENDING", *["CREATED"] * (stages - 1)]
    datas = ["{}"] * stages
    said = ["tree"] * stages, statuses, datas, datas, [1] * stages, none, [NO_TRACE.traceparent] * stages, none
    return sql.job_create.sql, *job, *said, 3, [f"[{', '.join(['{}'] * tasks)}]"] * stages, none, none


async def whole_life(connection: Connection, database: Database) -> dict[str, int]:
    """One job of two tasks from claim to end, in every way that a task may go; rows touched by each statement."""
    key = str(await connection.fetchval("SELECT count(*) FROM job_keys"))
    costs = {"create": await touched(connection, *tree(key)), "key is taken": await touched(connection, *tree(key))}
    stage_id = await add_backlog(database, "guarded", 2)
    more = sql.task_add.sql, stage_id, 3, "[{}, {}]", None, None, NO_TRACE.traceparent, None, False
    costs["add"] = await touched(connection, *more)
    ids = [held.task for held in in_hand(await connection.fetch(*claim("guarded", 4)))]
    await connection.fetch(*settle([ids.pop(), ids.pop()]))
    none = [None, None]
    delays = [None, timedelta(microseconds=1)]
    back = (ids, none, none, ["RELEASED", "FAILED"], none, none, [True, True], delays, none)
    costs["hand back"] = await touched(connection, sql.task_settle.sql, *back)
    costs["wake"] = await touched(connection, sql.delayed_wake.sql, 10)
    costs["claim"] = await touched(connection, *lease("guarded", 1))
    held = in_hand(await connection.fetch(*lease("guarded", 2)))
    beat = ([one.task for one in held], [one.lease for one in held], ["{}"] * len(held), ["{}"] * len(held))
    costs["heartbeat"] = await touched(connection, sql.leases_renew.sql, "guard", *beat)
    costs["sweep"] = await touched(connection, sql.leases_expired.sql, 10)
    stage_id = await connection.fetchval("SELECT stage_id FROM tasks WHERE id = $1", ids[0])
    costs["fold"] = await touched(connection, sql.deltas_fold.sql, stage_id)
    running = await connection.fetch("SELECT task_id, id FROM leases WHERE stage_id = $1 ORDER BY id", stage_id)
    for number, (task_id, lease_id) in enumerate(running):
        done = ([task_id], [lease_id], ["guard"], ["COMPLETED"], [None], [None], [True], [None], [None])
        costs[f"end {number}"] = await touched(connection, sql.task_settle.sql, *done)
    assert await connection.fetchval("SELECT status FROM stages WHERE id = $1", stage_id) == "COMPLETED"
    return costs


@pytest.mark.timeout(60)  # writes sixty thousand rows
async def test_plans_of_small_tables_serve_when_they_are_large(database: Database) -> None:
    """Plans that were made while there were few jobs touch no more rows when twenty thousand have gone by."""
    async with database.connection() as connection:
        await connection.execute("ANALYZE")
        alone = [await whole_life(connection, database) for _ in range(8)][-1]
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
        crowded = await whole_life(connection, database)
        assert {name: cost for name, cost in crowded.items() if cost > alone[name] + 10} == {}


MANY = 500
"""Tasks in a claim, reports in a request."""


async def batch(connection: Connection, jobs: int) -> dict[str, int]:
    """Many tasks of so many jobs at once, from creation to end, in both ways; rows touched by each statement."""
    key = str(await connection.fetchval("SELECT count(*) FROM job_keys"))
    costs = {"create": await touched(connection, *tree(key, 5, MANY // 5))}
    costs["key is taken"] = await touched(connection, *tree(key, 5, MANY // 5))
    stage_id = await connection.fetchval("SELECT id FROM stages WHERE type = 'tree' AND status = 'PENDING'")
    tasks = f"[{', '.join(['{}'] * MANY)}]"
    more = sql.task_add.sql, stage_id, 3, tasks, None, None, NO_TRACE.traceparent, None, False
    costs["add"] = await touched(connection, *more)
    await connection.execute("DELETE FROM jobs WHERE id = (SELECT job_id FROM stages WHERE id = $1)", stage_id)
    for report in (complete, settle):
        for _ in range(jobs):
            await connection.fetch(*tree(None, 1, MANY // jobs + 1))
        async with connection.transaction():
            before = await connection.fetchval(ROWS)
            ids = [held.task for held in in_hand(await connection.fetch(*claim("tree", MANY)))]
            costs["claim"] = await connection.fetchval(ROWS) - before
        assert len(ids) == MANY
        costs[report.__name__] = await touched(connection, *report(ids))
        await connection.fetch(*claim("tree", MANY))
        left = await connection.fetch("SELECT id FROM tasks WHERE status = 'IN_PROGRESS'")
        await connection.fetch(*settle([row["id"] for row in left]))
    return costs


@pytest.mark.timeout(60)  # writes thousands of jobs, one by one
@pytest.mark.parametrize("statistics", ["of empty tables", "of an idle hour"])
@pytest.mark.parametrize(
    ("jobs", "most"),
    [
        (1, {"create": 1.2, "key is taken": 0.1, "add": 1.1, "claim": 2.1, "complete": 3.1, "settle": 8.1}),
        (250, {"create": 1.2, "key is taken": 0.1, "add": 1.1, "claim": 8, "complete": 4, "settle": 15}),
    ],
)
async def test_many_at_once_touch_so_many_rows_each(
    database: Database, statistics: str, jobs: int, most: dict[str, float]
) -> None:
    """What a task costs in a large request is a number, also while hundreds of other stages are at work."""
    async with database.connection() as connection:
        await connection.execute("ANALYZE")
        await batch(connection, 1)
        if statistics == "of an idle hour":
            await batch(connection, 250)
            await batch(connection, 250)
            assert await connection.fetchval("SELECT count(*) FROM stages WHERE status <> 'COMPLETED'") == 0
            await connection.execute("ANALYZE")
        for _ in range(300):
            await add_backlog(database, "others", 1)
        costs = await batch(connection, jobs)
        assert {name: cost / MANY for name, cost in costs.items() if cost > MANY * most[name]} == {}
