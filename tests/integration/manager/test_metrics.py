"""Metrics: always exact, complete from the start, and cheap however many jobs have ended."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from reference_manager.domain.states import JobStatus, Priority, StageStatus, TaskStatus
from reference_manager.engine.maintenance.counter_folding import CounterFolding
from reference_manager.engine.statistics import read_statistics, read_statistics_of
from reference_manager.store.pool import Connection, Database, sql

from tests.support.claims import claim_statement, claimed_tasks
from tests.support.protocol import Client
from tests.support.statistics import ROWS
from tests.support.worker import LeasedWorker, report
from tools.backlog import add_backlog
from tools.manager import ManagerProcess

Start = Callable[..., ManagerProcess]
Samples = dict[tuple[str, tuple[str, ...]], float]

MAINTENANCE_TASKS = (
    "aborted tasks",
    "counter folding",
    "delayed tasks",
    "deleted jobs",
    "lease sweeper",
    "stale workers",
)
HOUR = 3600


@pytest.fixture
async def alone(start_manager: Start) -> AsyncGenerator[Client]:
    """A client of a manager that no other test uses."""
    async with httpx2.AsyncClient(base_url=start_manager().url, timeout=15) as http:
        yield Client(http)


async def scrape(http: httpx2.AsyncClient) -> Samples:
    """Scrape the metrics: values by metric name and label values, with the labels sorted by name."""
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families((await http.get("/metrics")).text)
        for sample in family.samples
    }


async def wait_for_scrape(http: httpx2.AsyncClient, reached: Callable[[Samples], bool]) -> Samples:
    """Return the first scrape for which the condition holds."""
    async with asyncio.timeout(10):
        while not reached(found := await scrape(http)):  # noqa: ASYNC110 - the manager does not call us
            await asyncio.sleep(0.05)
    return found


async def test_all_metric_families_exist_from_the_start(alone: Client) -> None:
    """Series that can be known in advance start with an explicit zero."""
    found = await wait_for_scrape(alone.http, lambda found: found["jobnik_manager_notifications_arrive", ()] == 1)
    for status in JobStatus:
        assert found["jobnik_jobs_by_status", (status,)] == 0
    for statement in ("claim", "complete", "settle"):
        assert found["jobnik_manager_statement_duration_seconds_count", (statement,)] == 0
        assert found["jobnik_manager_statement_tasks_count", (statement,)] == 0
    for task in MAINTENANCE_TASKS:
        assert found["jobnik_manager_duty_failures_total", (task,)] == 0
        assert ("jobnik_manager_duty_rounds_total", (task,)) in found
        assert found["jobnik_maintenance_lag_seconds", (task,)] == 0
    for table in ("jobs", "stages", "tasks", "waiting_tasks", "leases", "stage_deltas", "stage_totals"):
        assert ("jobnik_database_dead_tuples", (table,)) in found
    assert found["jobnik_manager_leases_lost_total", ()] == 0
    assert found["jobnik_manager_claims_waiting", ()] == 0
    assert found["jobnik_manager_database_connections", ("idle",)] >= 1
    assert found["jobnik_database_oldest_xmin_age_transactions", ()] >= 0
    assert not [name for name, _ in found if name.endswith("_created")]


async def test_claims_and_reports_are_measured(alone: Client) -> None:
    """Statements, their sizes and the waits before them are measured; the series of a type start with zeros."""
    stage = await alone.stage(await alone.job(), "measured")
    await alone.tasks(stage, 6)
    worker = LeasedWorker(alone.http)
    done, failed, *_ = await worker.claim("measured", 5)
    await worker.settle(report(done, "COMPLETED"), report(failed, "FAILED"))
    (late,) = await worker.settle(report(failed, "RELEASED"))
    assert late["status"] == "RETRIED"
    (lost,) = await worker.settle(report({**done, "leaseId": done["leaseId"] + 100}, "FAILED"))
    assert lost["code"] == "LEASE_LOST"
    found = await scrape(alone.http)
    assert found["jobnik_manager_statement_tasks_sum", ("claim",)] == 5
    assert found["jobnik_manager_statement_tasks_sum", ("complete",)] == 1
    assert found["jobnik_manager_statement_tasks_sum", ("settle",)] == 3
    assert found["jobnik_manager_statement_duration_seconds_sum", ("claim",)] > 0
    assert found["jobnik_manager_task_wait_seconds_count", ("measured",)] == 5
    assert found["jobnik_manager_leases_lost_total", ()] == 1
    for outcome in ("EXPIRED", "TIMED_OUT"):
        assert found["jobnik_manager_leases_expired_total", (outcome, "measured")] == 0


async def test_expired_leases_are_counted(alone: Client, database: Database) -> None:
    """Expired leases are counted by stage type and by cause: the lease or the time limit of the task."""
    await alone.tasks(await alone.stage(await alone.job(), "ending"), 3)
    worker = LeasedWorker(alone.http)
    _, slow = await worker.claim("ending", 2, leaseSeconds=1)
    await alone.claimed("ending")
    async with database.connection() as connection:
        await connection.execute("UPDATE leases SET deadline = expires_at WHERE id = $1", slow["leaseId"])
        await connection.execute("UPDATE leases SET expires_at = now() WHERE worker_id IS NULL")
    name = "jobnik_manager_leases_expired_total"
    found = await wait_for_scrape(
        alone.http, lambda found: sum(value for key, value in found.items() if key[0] == name) == 3
    )
    assert found[name, ("EXPIRED", "ending")] == 2
    assert found[name, ("TIMED_OUT", "ending")] == 1


async def test_waiting_claims_are_counted(alone: Client) -> None:
    """A claim that waits for work is counted until it is answered."""
    await alone.stage(await alone.job(), "awaited")
    claim = asyncio.create_task(LeasedWorker(alone.http).claim("awaited", waitSeconds=20))
    await wait_for_scrape(alone.http, lambda found: found["jobnik_manager_claims_waiting", ()] == 1)
    await alone.tasks(await alone.stage(await alone.job(), "awaited"))
    assert await claim
    await wait_for_scrape(alone.http, lambda found: found["jobnik_manager_claims_waiting", ()] == 0)


async def age_waiting_tasks(connection: Connection) -> None:
    """Make everything that waits an hour older."""
    await connection.execute("UPDATE waiting_tasks SET ready_at = ready_at - interval '1 hour'")
    await connection.execute("UPDATE stages SET opened_at = opened_at - interval '1 hour'")


async def claimed_wait(client: Client, stage_type: str) -> float:
    """Claim a task of a type and return its wait according to the metric, in seconds."""
    name = ("jobnik_manager_task_wait_seconds_sum", (stage_type,))
    before = (await scrape(client.http)).get(name, 0.0)
    await client.claimed(stage_type)
    return (await scrape(client.http))[name] - before


async def oldest_age(client: Client, stage_type: str) -> float:
    """Return the age of the oldest waiting task of a type according to the metric, in seconds."""
    return (await scrape(client.http))["jobnik_oldest_waiting_age_seconds", (stage_type,)]


async def test_a_wait_starts_when_a_task_becomes_claimable(alone: Client, database: Database) -> None:
    """A wait starts when the task is created, retried or released, or when its stage or job opens."""
    async with database.connection() as connection:
        job = await alone.job()
        first, second = await alone.stage(job, "waits"), await alone.stage(job, "follows")
        held = await alone.stage(await alone.job(), "held", startAsWaiting=True)
        for stage in (first, second, held):
            await alone.tasks(stage, 1)
        assert await oldest_age(alone, "waits") < HOUR
        await age_waiting_tasks(connection)
        assert await oldest_age(alone, "waits") >= HOUR
        assert await oldest_age(alone, "follows") == await oldest_age(alone, "held") == 0

        await alone.move(job, "PAUSED")
        assert await oldest_age(alone, "waits") == 0
        await alone.move(job, "PENDING")
        assert 0 < await oldest_age(alone, "waits") < HOUR
        await age_waiting_tasks(connection)
        assert await claimed_wait(alone, "waits") >= HOUR
        assert await oldest_age(alone, "waits") == 0

        (task,) = (await alone.read(first))["tasks"]
        await alone.settle(task, "FAILED")
        assert await claimed_wait(alone, "waits") < HOUR
        await age_waiting_tasks(connection)
        await alone.settle(task, "COMPLETED")
        assert 0 < await oldest_age(alone, "follows") < HOUR
        assert await claimed_wait(alone, "follows") < HOUR
        await alone.http.put(f"/v1/stages/{held['id']}/status", json={"status": "PENDING"})
        assert 0 < await oldest_age(alone, "held") < HOUR
        assert await claimed_wait(alone, "held") < HOUR


async def test_the_oldest_task_is_found_behind_busier_stages(alone: Client, database: Database) -> None:
    """The oldest task of a type counts, whether more urgent jobs or older jobs of equal priority are served first."""
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
    assert await oldest_age(alone, "crowd") >= HOUR


async def counted_rows(connection: Connection) -> tuple[Any, Any, Any]:
    """Return the counts of jobs, stages and tasks from their rows."""
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


async def test_the_statistics_match_the_rows(alone: Client, database: Database) -> None:
    """After every kind of change, the statistics match the rows, both before and after folding."""
    http = alone.http

    async def check_statistics() -> None:
        for _ in range(2):
            async with database.transaction(snapshot=True) as connection:
                statistics, counted = await read_statistics_of(connection), await counted_rows(connection)
            assert (+Counter(statistics.jobs), +Counter(statistics.stages), +Counter(statistics.tasks)) == counted
            async with database.connection() as connection:
                await CounterFolding().round(connection)

    worker = LeasedWorker(http)
    first, second = await alone.job(), await alone.job(priority="LOW")
    stage = await alone.stage(first, "counted")
    later = await alone.stage(first, "counted later")
    other = await alone.stage(second, "counted")
    for new in (stage, later, other):
        await alone.tasks(new, 4)
    await check_statistics()
    done, failed, released, snoozed, *more = await worker.claim("counted", 7)
    await check_statistics()
    await worker.settle(
        report(done, "COMPLETED"),
        report(failed, "FAILED"),
        report(released, "RELEASED"),
        report(snoozed, "SNOOZED", delaySeconds=600),
    )
    await check_statistics()
    await http.patch(f"/v1/jobs/{second['id']}/priority", json={"priority": "VERY_HIGH"})
    await alone.move(second, "PAUSED")
    await check_statistics()
    await worker.complete(*more)
    await alone.move(second, "ABORTED")
    await check_statistics()
    await http.delete(f"/v1/jobs/{second['id']}")
    await check_statistics()
    (again,) = await worker.claim("counted")
    await worker.settle(report(again, "FAILED", retryable=False))
    assert await alone.status(first) == "FAILED"
    await check_statistics()
    await http.delete(f"/v1/jobs/{first['id']}")
    await check_statistics()
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM stage_totals") == 0
        assert await connection.fetchval("SELECT count(*) FROM job_totals") == 0


async def test_managers_share_database_metrics_and_have_their_own_counters(start_manager: Start) -> None:
    """Metrics from the database are the same on every manager, and measurements are each manager's own."""
    async with (
        httpx2.AsyncClient(base_url=start_manager().url) as one,
        httpx2.AsyncClient(base_url=start_manager().url) as two,
    ):
        client = Client(one)
        await client.tasks(await client.stage(await client.job(), "shared"), 2)
        await client.claimed("shared")
        here, there = await scrape(one), await scrape(two)
    count = ("jobnik_manager_statement_tasks_sum", ("claim",))
    assert (here[count], there[count]) == (1, 0)
    assert ("jobnik_manager_task_wait_seconds_count", ("shared",)) not in there
    pending = ("jobnik_tasks_by_status", ("shared", "PENDING"))
    assert here[pending] == there[pending] == 1


async def test_a_transaction_that_holds_back_vacuum_is_visible(database: Database) -> None:
    """The age of an open transaction is the number of transactions since it started."""
    async with database.transaction(snapshot=True) as holding, database.connection() as busy:
        await holding.fetchval("SELECT count(*) FROM jobs")
        for _ in range(20):
            await busy.execute(
                "INSERT INTO workers (id, stage_types, draining, running) VALUES (new_id(), '{}', false, 0)"
            )
        await busy.execute("DELETE FROM workers")
        assert (await read_statistics(database)).oldest_xmin >= 20


@pytest.mark.timeout(180)  # writes twenty thousand stages
@pytest.mark.parametrize("statistics", ["of an empty database", "of what is there"])
async def test_the_cost_of_a_scrape_does_not_depend_on_ended_stages(database: Database, statistics: str) -> None:
    """Ended stages, waiting tasks and stages with work do not make a scrape read more rows."""

    async def scrape_cost() -> int:
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
        assert len(claimed_tasks(await connection.fetch(*claim_statement("guarded", 5)))) == 5
        alone = await scrape_cost()
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
        assert await scrape_cost() <= alone + 10
