"""Metrics: exact at any moment, whole from the start, and cheap whatever has ended."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from reference_manager.domain.states import JobStatus, Priority, StageStatus, TaskStatus
from reference_manager.engine.statistics import read_statistics, read_statistics_of
from reference_manager.store.pool import Connection, Database, sql

from tests.support.claims import claim_of, in_hand
from tests.support.protocol import Client
from tests.support.statistics import ROWS
from tests.support.worker import LeasedWorker, report
from tools.backlog import add_backlog
from tools.manager import ManagerProcess

Start = Callable[..., ManagerProcess]
Figures = dict[tuple[str, tuple[str, ...]], float]

MAINTENANCE_TASKS = ("aborted tasks", "counter folding", "delayed tasks", "lease sweeper")
HOUR = 3600


@pytest.fixture
async def alone(start_manager: Start) -> AsyncGenerator[Client]:
    """A client of a manager that nobody else uses."""
    async with httpx2.AsyncClient(base_url=start_manager().url, timeout=15) as http:
        yield Client(http)


async def figures(http: httpx2.AsyncClient) -> Figures:
    """The values of a scrape by metric and label values, the labels sorted by name."""
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families((await http.get("/metrics")).text)
        for sample in family.samples
    }


async def until(http: httpx2.AsyncClient, reached: Callable[[Figures], bool]) -> Figures:
    """The first scrape for which this holds."""
    async with asyncio.timeout(10):
        while not reached(found := await figures(http)):  # noqa: ASYNC110 - the manager does not call us
            await asyncio.sleep(0.05)
    return found


async def test_all_families_are_there_from_the_start(alone: Client) -> None:
    """What can be known beforehand has explicit zeros before anything has happened."""
    found = await until(alone.http, lambda found: found["jobnik_manager_notifications_arrive", ()] == 1)
    for status in JobStatus:
        assert found["jobnik_jobs_by_status", (status,)] == 0
    for statement in ("claim", "complete", "settle"):
        assert found["jobnik_manager_statement_duration_seconds_count", (statement,)] == 0
        assert found["jobnik_manager_statement_tasks_count", (statement,)] == 0
    for task in MAINTENANCE_TASKS:
        assert found["jobnik_manager_duty_failures_total", (task,)] == 0
        assert ("jobnik_manager_duty_rounds_total", (task,)) in found
    for table in ("jobs", "stages", "tasks", "waiting_tasks", "leases", "stage_deltas", "stage_totals"):
        assert ("jobnik_database_dead_tuples", (table,)) in found
    assert found["jobnik_manager_leases_lost_total", ()] == 0
    assert found["jobnik_manager_claims_waiting", ()] == 0
    assert found["jobnik_manager_database_connections", ("idle",)] >= 1
    assert found["jobnik_database_oldest_xmin_age_transactions", ()] >= 0
    assert not [name for name, _ in found if name.endswith("_created")]


async def test_claims_and_reports_are_measured(alone: Client) -> None:
    """Statements, their sizes and the waits before them; a type's series begin together, with zeros."""
    stage = await alone.stage(await alone.job(), "measured")
    await alone.tasks(stage, 6)
    worker = LeasedWorker(alone.http)
    done, failed, *_ = await worker.claim("measured", 5)
    await worker.settle(report(done, "COMPLETED"), report(failed, "FAILED"))
    (late,) = await worker.settle(report(failed, "RELEASED"))
    assert late["status"] == "RETRIED"
    (lost,) = await worker.settle(report({**done, "leaseId": done["leaseId"] + 100}, "FAILED"))
    assert lost["code"] == "LEASE_LOST"
    found = await figures(alone.http)
    assert found["jobnik_manager_statement_tasks_sum", ("claim",)] == 5
    assert found["jobnik_manager_statement_tasks_sum", ("complete",)] == 1
    assert found["jobnik_manager_statement_tasks_sum", ("settle",)] == 3
    assert found["jobnik_manager_statement_duration_seconds_sum", ("claim",)] > 0
    assert found["jobnik_manager_task_wait_seconds_count", ("measured",)] == 5
    assert found["jobnik_manager_leases_lost_total", ()] == 1
    for outcome in ("EXPIRED", "TIMED_OUT"):
        assert found["jobnik_manager_leases_expired_total", (outcome, "measured")] == 0


async def test_leases_that_end_are_counted(alone: Client, database: Database) -> None:
    """By the type of their stage, and by what was over: the lease or the task's time."""
    await alone.tasks(await alone.stage(await alone.job(), "ending"), 3)
    worker = LeasedWorker(alone.http)
    _, slow = await worker.claim("ending", 2, leaseSeconds=1)
    await alone.claimed("ending")
    async with database.connection() as connection:
        await connection.execute("UPDATE leases SET deadline = expires_at WHERE id = $1", slow["leaseId"])
        await connection.execute("UPDATE leases SET expires_at = now() WHERE worker_id IS NULL")
    name = "jobnik_manager_leases_expired_total"
    found = await until(alone.http, lambda found: sum(value for key, value in found.items() if key[0] == name) == 3)
    assert found[name, ("EXPIRED", "ending")] == 2
    assert found[name, ("TIMED_OUT", "ending")] == 1


async def test_those_who_wait_are_counted(alone: Client) -> None:
    """A claim that waits for work shows, until it has its answer."""
    await alone.stage(await alone.job(), "awaited")
    claim = asyncio.create_task(LeasedWorker(alone.http).claim("awaited", waitSeconds=20))
    await until(alone.http, lambda found: found["jobnik_manager_claims_waiting", ()] == 1)
    await alone.tasks(await alone.stage(await alone.job(), "awaited"))
    assert await claim
    await until(alone.http, lambda found: found["jobnik_manager_claims_waiting", ()] == 0)


async def grow_old(connection: Connection) -> None:
    """Let everything that waits have waited for an hour."""
    await connection.execute("UPDATE waiting_tasks SET ready_at = ready_at - interval '1 hour'")
    await connection.execute("UPDATE stages SET opened_at = opened_at - interval '1 hour'")


async def waited(client: Client, stage_type: str) -> float:
    """For how long the next task of a type has waited, by the metric."""
    name = ("jobnik_manager_task_wait_seconds_sum", (stage_type,))
    before = (await figures(client.http)).get(name, 0.0)
    await client.claimed(stage_type)
    return (await figures(client.http))[name] - before


async def oldest(client: Client, stage_type: str) -> float:
    """The age of the oldest waiting task of a type, by the metric."""
    return (await figures(client.http))["jobnik_oldest_waiting_age_seconds", (stage_type,)]


async def test_a_wait_begins_when_a_task_can_be_claimed(alone: Client, database: Database) -> None:
    """At its creation, its retry, its release, or when its stage or job opens: not before."""
    async with database.connection() as connection:
        job = await alone.job()
        first, second = await alone.stage(job, "waits"), await alone.stage(job, "follows")
        held = await alone.stage(await alone.job(), "held", startAsWaiting=True)
        for stage in (first, second, held):
            await alone.tasks(stage, 1)
        assert await oldest(alone, "waits") < HOUR
        await grow_old(connection)
        assert await oldest(alone, "waits") >= HOUR
        assert await oldest(alone, "follows") == await oldest(alone, "held") == 0

        await alone.move(job, "PAUSED")
        assert await oldest(alone, "waits") == 0
        await alone.move(job, "PENDING")
        assert 0 < await oldest(alone, "waits") < HOUR
        await grow_old(connection)
        assert await waited(alone, "waits") >= HOUR
        assert await oldest(alone, "waits") == 0

        (task,) = (await alone.read(first))["tasks"]
        await alone.settle(task, "FAILED")
        assert await waited(alone, "waits") < HOUR
        await grow_old(connection)
        await alone.settle(task, "COMPLETED")
        assert 0 < await oldest(alone, "follows") < HOUR
        assert await waited(alone, "follows") < HOUR
        await alone.http.put(f"/v1/stages/{held['id']}/status", json={"status": "PENDING"})
        assert 0 < await oldest(alone, "held") < HOUR
        assert await waited(alone, "held") < HOUR


async def test_the_oldest_is_found_behind_busier_stages(alone: Client, database: Database) -> None:
    """A stage that has to stand back shows, whether behind more urgent jobs or behind older ones of its priority."""
    urgent = await alone.stage(await alone.job(priority="VERY_HIGH"), "crowd")
    older = await alone.stage(await alone.job(), "crowd")
    starved = await alone.stage(await alone.job(), "crowd")
    for stage in (urgent, older, starved):
        await alone.tasks(stage, 2)
    async with database.connection() as connection:
        await connection.execute("UPDATE stages SET opened_at = opened_at - interval '2 hours'")
        await connection.execute(
            "UPDATE waiting_tasks SET ready_at = ready_at - interval '1 hour' WHERE stage_id = $1", starved["id"]
        )
    assert await oldest(alone, "crowd") >= HOUR


async def truth(connection: Connection) -> tuple[Any, Any, Any]:
    """What the rows of jobs, stages and tasks say, counted one by one."""
    jobs = await connection.fetch("SELECT status, count(*) FROM jobs GROUP BY status")
    stages = await connection.fetch("SELECT type, status, count(*) FROM stages GROUP BY type, status")
    tasks = await connection.fetch("""
        SELECT stage.type, stage.priority, task_status(task, aborted_at(stage)) AS status, count(*)
        FROM tasks AS task JOIN stages AS stage ON stage.id = task.stage_id GROUP BY 1, 2, 3
    """)
    return (
        {JobStatus(row["status"]): row["count"] for row in jobs},
        {(row["type"], StageStatus(row["status"])): row["count"] for row in stages},
        {(row["type"], Priority(row["priority"]), TaskStatus(row["status"])): row["count"] for row in tasks},
    )


async def test_the_figures_are_those_of_the_rows(alone: Client, database: Database) -> None:
    """After every kind of change, before and after it is folded."""
    http = alone.http

    async def agree() -> None:
        for _ in range(2):
            async with database.transaction(snapshot=True) as connection:
                statistics, counted = await read_statistics_of(connection), await truth(connection)
            assert (+Counter(statistics.jobs), +Counter(statistics.stages), +Counter(statistics.tasks)) == counted
            async with database.connection() as connection:
                for stage in [row["stage_id"] async for row in sql.deltas_stages(connection)]:
                    await sql.deltas_fold(connection, stage_id=stage)
                await sql.totals_fold(connection)

    worker = LeasedWorker(http)
    first, second = await alone.job(), await alone.job(priority="LOW")
    stage = await alone.stage(first, "counted")
    later = await alone.stage(first, "counted later")
    other = await alone.stage(second, "counted")
    for new in (stage, later, other):
        await alone.tasks(new, 4)
    await agree()
    done, failed, released, snoozed, *more = await worker.claim("counted", 7)
    await agree()
    await worker.settle(
        report(done, "COMPLETED"),
        report(failed, "FAILED"),
        report(released, "RELEASED"),
        report(snoozed, "SNOOZED", delaySeconds=600),
    )
    await agree()
    await http.patch(f"/v1/jobs/{second['id']}/priority", json={"priority": "VERY_HIGH"})
    await alone.move(second, "PAUSED")
    await agree()
    await worker.complete(*more)
    await alone.move(second, "ABORTED")
    await agree()
    await http.delete(f"/v1/jobs/{second['id']}")
    await agree()
    (again,) = await worker.claim("counted")
    await worker.settle(report(again, "FAILED", retryable=False))
    assert await alone.status(first) == "FAILED"
    await agree()
    await http.delete(f"/v1/jobs/{first['id']}")
    await agree()
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM stage_totals") == 0
        assert await connection.fetchval("SELECT count(*) FROM job_totals") == 0


async def test_managers_agree_on_the_database_and_count_for_themselves(start_manager: Start) -> None:
    """What the database counts is the same through each manager; what a manager measures is its own."""
    async with (
        httpx2.AsyncClient(base_url=start_manager().url) as one,
        httpx2.AsyncClient(base_url=start_manager().url) as two,
    ):
        client = Client(one)
        await client.tasks(await client.stage(await client.job(), "shared"), 2)
        await client.claimed("shared")
        here, there = await figures(one), await figures(two)
    count = ("jobnik_manager_statement_tasks_sum", ("claim",))
    assert (here[count], there[count]) == (1, 0)
    assert ("jobnik_manager_task_wait_seconds_count", ("shared",)) not in there
    pending = ("jobnik_tasks_by_status", ("shared", "PENDING"))
    assert here[pending] == there[pending] == 1


async def test_whoever_holds_back_vacuum_shows(database: Database) -> None:
    """A transaction that stays open is as old as the number of transactions since."""
    async with database.transaction(snapshot=True) as holding, database.connection() as busy:
        await holding.fetchval("SELECT count(*) FROM jobs")
        for _ in range(20):
            await busy.execute(
                "INSERT INTO workers (id, stage_types, draining, running) VALUES (new_id(), '{}', false, 0)"
            )
        await busy.execute("DELETE FROM workers")
        assert (await read_statistics(database)).oldest_xmin >= 20


@pytest.mark.timeout(60)  # writes twenty thousand stages
@pytest.mark.parametrize("statistics", ["of an empty database", "of what is there"])
async def test_a_scrape_touches_few_rows_whatever_has_ended(database: Database, statistics: str) -> None:
    """Neither stages that have ended nor tasks that wait nor stages with work make a scrape longer."""

    async def scrape() -> int:
        async with database.connection() as connection:
            await sql.totals_fold(connection)
        async with database.transaction(snapshot=True) as connection:
            before = await connection.fetchval(ROWS)
            await read_statistics_of(connection)
            return await connection.fetchval(ROWS) - before

    async with database.connection() as connection:
        await connection.execute("ANALYZE")
        for _ in range(10):
            await add_backlog(database, "guarded", 2)
        assert len(in_hand(await connection.fetch(*claim_of("guarded", 5)))) == 5
        alone = await scrape()
        await connection.execute("""
            WITH job AS (
                INSERT INTO jobs
                    (name, status, priority, data, user_metadata, traceparent, stages_total, stages_completed)
                SELECT 'ended', 'COMPLETED', 'MEDIUM', '{}', '{}', '', 1, 1 FROM generate_series(1, 20000)
                RETURNING id
            )
            INSERT INTO stages (
                job_id, position, type, status, data, user_metadata, priority, job_open, completed, start_time,
                end_time, traceparent
            )
            SELECT id, 1, 'guarded', 'COMPLETED', '{}', '{}', 'MEDIUM', true, 5, now(), now(), '' FROM job
        """)
        for _ in range(30):
            await add_backlog(database, "guarded", 1)
        await add_backlog(database, "guarded", 1000)
        if statistics == "of what is there":
            await connection.execute("ANALYZE")
        counts = await read_statistics(database)
        assert counts.stages["guarded", StageStatus.COMPLETED] == 20_000
        assert counts.tasks["guarded", Priority.MEDIUM, TaskStatus.COMPLETED] == 100_000
        assert await scrape() <= alone + 10
