"""Deleted jobs: gone at once for every client, while the rows of their tasks are removed in small steps."""

import asyncio
from collections.abc import Callable
from uuid import UUID

import httpx2
import pytest
from reference_manager.domain.states import JobStatus
from reference_manager.engine.maintenance.deleted_jobs import DeletedJobs
from reference_manager.engine.records.jobs import Jobs
from reference_manager.store.pool import Database, sql

from tests.support.claims import claim_statement, claimed_tasks
from tests.support.invariants import violations
from tests.support.protocol import Client, refused
from tests.support.sessions import Session, job_of, session
from tests.support.worker import LeasedWorker, report
from tools.backlog import add_backlog, without_claims
from tools.manager import ManagerProcess

TABLES = (
    *("jobs", "job_keys", "stages", "history", "tasks", "attempts"),
    *("waiting_tasks", "delayed_tasks", "leases", "stage_deltas", "aborted_stages", "deleted_stages"),
)
DELETE_OF_THE_PREVIOUS_VERSION = """
    WITH deleted_stages AS (
        SELECT id FROM stages WHERE job_id = $1
    ), deltas AS (
        DELETE FROM stage_deltas WHERE stage_id = ANY (ARRAY(SELECT id FROM deleted_stages))
    ), waiting AS (
        DELETE FROM waiting_tasks WHERE stage_id = ANY (ARRAY(SELECT id FROM deleted_stages))
    ), delayed AS (
        DELETE FROM delayed_tasks WHERE stage_id = ANY (ARRAY(SELECT id FROM deleted_stages))
    )
    DELETE FROM jobs WHERE id = $1
"""


async def rows(connection: Session) -> dict[str, int]:
    """Return the number of rows of each table that has any."""
    counts = {table: await connection.fetchval(f"SELECT count(*) FROM {table}") for table in TABLES}  # noqa: S608 - as listed
    return {table: count for table, count in counts.items() if count}


async def test_a_deleted_job_is_gone_at_once(start_manager: Callable[..., ManagerProcess], connection: Session) -> None:
    """While its tasks still have rows, no client finds the job, a stage or a task, and its key is free."""
    async with httpx2.AsyncClient(base_url=start_manager().url, timeout=15) as http:
        client, worker = Client(http), LeasedWorker(http)
        job = await client.job(uniqueKey="key", uniqueFor=3600)
        stage = await client.stage(job, "doomed")
        tasks = await client.tasks(stage, 4)
        done, again, late, held = await worker.claim("doomed", 4)
        await worker.settle(
            report(done, "COMPLETED"), report(again, "FAILED"), report(late, "SNOOZED", delaySeconds=600)
        )
        await client.move(job, "ABORTED")
        await connection.fetch("SELECT pg_advisory_lock($1)", DeletedJobs.key())
        assert (await http.delete(f"/v1/jobs/{job['id']}")).status_code == 200
        assert (await rows(connection))["tasks"] == 4

        refused(await http.delete(f"/v1/jobs/{job['id']}"), 404, "JOB_NOT_FOUND")
        assert (await http.get("/v1/jobs")).json() == (await http.get("/v1/stages")).json() == []
        assert (await http.get("/v1/tasks")).json() == (await http.get("/v1/tasks?stage_type=doomed")).json() == []
        for kind, entity in (("job", job), ("stage", stage), ("task", tasks[0])):
            path = f"/v1/{kind}s/{entity['id']}"
            for name in ("", "/history", "/stages", "/tasks", "/summary", "/attempts"):
                assert (await http.get(path + name)).status_code == 404
            refused(await http.patch(f"{path}/user-metadata", json={}), 404, f"{kind.upper()}_NOT_FOUND")
        refused(await http.post(f"/v1/stages/{stage['id']}/tasks", json=[{"data": {}}]), 404, "STAGE_NOT_FOUND")
        refused(await http.put(f"/v1/tasks/{held['id']}/status", json={"status": "FAILED"}), 404, "TASK_NOT_FOUND")
        assert await worker.heartbeat(held) == {"lost": [held["leaseId"]], "cancel": [], "drain": False}
        (answer,) = await worker.complete(held)
        assert answer["code"] == "TASK_NOT_FOUND"
        assert await worker.claim("doomed", 4) == []
        new = await client.job(uniqueKey="key", uniqueFor=3600)
        assert new["id"] != job["id"]

        await connection.fetch("SELECT pg_advisory_unlock_all()")
        left = {"jobs": 1, "job_keys": 1, "history": 1}
        while await rows(connection) != left:
            pass
        assert not await violations(connection)


@pytest.mark.parametrize("statement", [sql.job_delete.sql, DELETE_OF_THE_PREVIOUS_VERSION])
async def test_rows_are_removed_in_small_steps(database: Database, connection: Session, statement: str) -> None:
    """Each step removes a few tasks or attempts, a crash between two steps costs nothing, and nothing is left over."""
    stage = await add_backlog(database, "doomed", 7)
    kept = await add_backlog(database, "kept", 2)
    claimed = claimed_tasks(await connection.fetch(*claim_statement("doomed", 3, "worker")))
    await connection.execute("""
        INSERT INTO attempts (lease_id, task_id, outcome, source, target, start_time, end_time)
        SELECT 1000 + number, id, 'SNOOZED', 'PENDING', 'PENDING', now(), now()
        FROM (SELECT id FROM tasks ORDER BY seq LIMIT 1) AS task, generate_series(1, 5) AS number
    """)
    job = await job_of(connection, stage)
    await Jobs(database, without_claims(database)).set_status(job, JobStatus.ABORTED)
    assert len(claimed) == 3
    await connection.execute(statement.replace("$1", f"'{job}'"))
    assert not await violations(connection)

    steps = list[tuple[int, int]]()
    while await connection.fetchval("SELECT count(*) FROM deleted_stages"):
        await sql.tasks_remove(connection, stages=[stage], limit=2)
        steps.append((await connection.fetchval("SELECT count(*) FROM attempts"), (await rows(connection))["tasks"]))
        assert not await violations(connection)
    assert steps == [(3, 9), (1, 9), (0, 7), (0, 5), (0, 3), (0, 2)]
    assert await rows(connection) == {"jobs": 1, "stages": 1, "history": 2, "tasks": 2, "waiting_tasks": 2}
    assert await connection.fetchval("SELECT count(*) FROM tasks WHERE stage_id = $1", kept) == 2


@pytest.mark.parametrize("descending", [False, True])
async def test_a_page_of_tasks_passes_few_deleted_tasks(
    database: Database,
    connection: Session,
    descending: bool,  # noqa: FBT001 - a parameter
) -> None:
    """Tasks of a deleted job count towards the rows that one page of the list passes, so that its cost is bounded."""
    sizes = (1, 30_000) if descending else (30_000, 1)
    stages = {size: await add_backlog(database, "doomed", size) for size in sizes}
    last = stages[1]
    await connection.execute("DELETE FROM jobs WHERE id <> (SELECT job_id FROM stages WHERE id = $1)", last)
    matches_all = [*[None] * 7, descending]
    first = await connection.fetch(sql.task_list.sql, *matches_all, None, None, 10)
    assert [row["body"] for row in first] == [None]
    rest = await connection.fetch(sql.task_list.sql, *matches_all, first[0]["major"], first[0]["minor"], 10)
    assert [UUID(row["body"].split('"stageId":"')[1][:36]) for row in rest] == [last]


@pytest.mark.parametrize(
    "change", ["UPDATE jobs SET status = 'PAUSED'", "UPDATE stages SET status = 'IN_PROGRESS', start_time = now()"]
)
async def test_a_deletion_leaves_no_history_of_a_concurrent_change(
    database: Database, connection: Session, database_url: str, change: str
) -> None:
    """A change that commits while the deletion waits for it is deleted with the job; no foreign key is needed."""
    await add_backlog(database, "doomed", 1)
    async with session(database_url) as deleting:
        async with connection.transaction():
            await connection.execute(change)
            deletion = asyncio.create_task(deleting.execute("DELETE FROM jobs"))
            blockers = "SELECT cardinality(pg_blocking_pids($1))"
            while not await connection.fetchval(blockers, deleting.get_server_pid()):  # noqa: ASYNC110 - it waits silently
                await asyncio.sleep(0.01)
        await deletion
    assert (await rows(connection)).keys() == {"tasks", "waiting_tasks", "deleted_stages"}
