"""More requests than the database can bear: each is told within a bounded time to come again, and none fails."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import asyncpg
import httpx2
from reference_manager.embedded import EmbeddedPostgres

from tests.support.protocol import refused
from tools.docs.openapi import page
from tools.manager import ManagerProcess

Start = Callable[..., ManagerProcess]

NOBODY = str(uuid4())
REPORT = {"taskId": NOBODY, "leaseId": 1}
BODIES: dict[str, Any] = {
    "create_job": {"name": "a job", "data": {}},
    "set_job_metadata": {},
    "set_job_priority": {"priority": "LOW"},
    "set_job_status": {"status": "PAUSED"},
    "add_stage": {"type": "x", "data": {}},
    "set_stage_metadata": {},
    "set_stage_status": {"status": "PENDING"},
    "add_tasks": [{"data": {}}],
    "set_task_metadata": {},
    "set_task_status": {"status": "FAILED"},
    "claim_tasks": {"workerId": "me", "waitSeconds": 30},
    "settle_tasks": {"workerId": "me", "results": [REPORT | {"outcome": "COMPLETED"}, REPORT | {"outcome": "FAILED"}]},
    "heartbeat": {"stageTypes": [], "running": [REPORT]},
    "order_worker": {"drain": True},
}
"""What each operation takes, by its id."""
WITHOUT_DATABASE = {"liveness", "get_capabilities"}
OPERATIONS = [
    (operation["operationId"], method.upper(), path)
    for path, operations in json.loads(page())["paths"].items()
    for method, operation in operations.items()
]
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


@asynccontextmanager
async def locked(database_url: str, waiters: int) -> AsyncGenerator[Callable[[], Any]]:
    """Nobody reads or writes stages until the end; gives what waits until so many connections wait for that."""
    connection = await asyncpg.connect(database_url, server_settings={"search_path": "jobnik"})

    async def filled() -> None:
        while await connection.fetchval(WAITING) < waiters:
            pass

    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE jobs, stages, tasks, workers IN ACCESS EXCLUSIVE MODE")
            yield filled
    finally:
        await connection.close()


async def test_every_operation_is_told_to_come_again(start_manager: Start, database_url: str) -> None:
    """While all connections are busy each request waits for as long as is set, then is answered 503, streams too."""
    manager = start_manager("--database-connections", "2", "--database-timeout", "PT0.3S")
    async with httpx2.AsyncClient(base_url=manager.url, limits=httpx2.Limits(max_connections=None), timeout=20) as http:
        async with locked(database_url, waiters=2) as filled:
            crowd = [asyncio.create_task(http.get(path)) for path in ("/v1/jobs", "/v1/stages", "/v1/tasks")]
            crowd.append(asyncio.create_task(http.patch("/v1/stages/busy/tasks/dequeue")))
            await filled()

            async def ask(name: str, method: str, path: str) -> tuple[str, httpx2.Response]:
                url = path.format(jobId=NOBODY, stageId=NOBODY, taskId=NOBODY, stageType="x", workerId="me")
                return name, await http.request(method, url, json=BODIES.get(name))

            answers = await asyncio.gather(*(ask(*operation) for operation in OPERATIONS for _ in range(5)))
            for name, response in answers:
                if name in WITHOUT_DATABASE:
                    assert response.status_code == 200
                else:
                    refused(response, 503, "DATABASE_RELATED_ERROR", "The database is busy. Try again shortly.")
                    assert response.headers["Retry-After"] == "1"
        assert {(await one).status_code for one in crowd} <= {200, 404, 503}
        assert (await http.get("/readiness")).status_code == 200


async def test_a_database_that_takes_no_more_connections_is_busy(postgres: EmbeddedPostgres) -> None:
    """Where PostgreSQL has fewer connections to give than the manager may open, requests are told to come again."""
    server, _, _ = postgres.url.rpartition("/")
    admin = await asyncpg.connect(postgres.url)
    try:
        await admin.execute("CREATE ROLE few LOGIN PASSWORD 'few' CONNECTION LIMIT 4")
        await admin.execute("CREATE DATABASE few OWNER few")
    finally:
        await admin.close()
    with ManagerProcess("--database-url", f"postgresql://few:few@{server.rpartition('@')[2]}/few") as manager:
        async with httpx2.AsyncClient(base_url=manager.url, timeout=20) as http:
            async with locked(f"{server}/few", waiters=2) as filled:
                crowd = [asyncio.create_task(http.get("/v1/jobs")) for _ in range(20)]
                await filled()
                refused(await http.get("/v1/stages"), 503, "DATABASE_RELATED_ERROR")
            assert {(await one).status_code for one in crowd} == {200, 503}
