"""Under more load than the database can take, requests are refused within a bounded time and none fails otherwise."""

import asyncio
import re
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from reference_manager.embedded import EmbeddedPostgres

from tests.support.protocol import refused
from tests.support.sessions import Session, session, wait_for_blocked_statement, wait_for_lock_waiters
from tools.docs.openapi import reference
from tools.manager import ManagerProcess

Start = Callable[..., ManagerProcess]

UNKNOWN_ID = str(uuid4())
REPORT = {"taskId": UNKNOWN_ID, "leaseId": 1}
BODIES: dict[str, Any] = {
    "create_token": {"name": "a token", "scopes": ["viewer"]},
    "rotate_token": {},
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
    "set_retention": {"default": {"completedSeconds": None, "failedSeconds": None, "abortedSeconds": None}},
}
"""The request body of each operation, by operation id."""
WITHOUT_DATABASE = {"liveness", "get_capabilities"}
OPERATIONS = [
    (operation["operationId"], method.upper(), path)
    for path, operations in reference()["paths"].items()
    for method, operation in operations.items()
]


@asynccontextmanager
async def locked_tables(database_url: str) -> AsyncGenerator[Session]:
    """Lock the tables, and yield the connection that holds the locks."""
    async with session(database_url) as locker, locker.transaction():
        await locker.execute("LOCK TABLE jobs, stages, tasks, workers IN ACCESS EXCLUSIVE MODE")
        yield locker


async def test_every_operation_is_refused_while_the_database_is_busy(start_manager: Start, database_url: str) -> None:
    """While all connections are busy, each request waits for the timeout and is then answered 503, streams included."""
    manager = start_manager("--database-connections", "2", "--database-timeout", "PT0.3S")
    async with httpx2.AsyncClient(base_url=manager.url, limits=httpx2.Limits(max_connections=None), timeout=50) as http:
        async with locked_tables(database_url) as locker:
            pending = [asyncio.create_task(http.get(path)) for path in ("/v1/jobs", "/v1/stages", "/v1/tasks")]
            pending.append(asyncio.create_task(http.patch("/v1/stages/busy/tasks/dequeue")))
            await wait_for_lock_waiters(locker, 2)

            async def send(name: str, method: str, path: str) -> tuple[str, httpx2.Response]:
                url = re.sub(r"\{\w+Id\}", UNKNOWN_ID, path.replace("{workerId}", "me").replace("{stageType}", "x"))
                return name, await http.request(method, url, json=BODIES.get(name))

            answers = await asyncio.gather(*(send(*operation) for operation in OPERATIONS for _ in range(5)))
            for name, response in answers:
                if name in WITHOUT_DATABASE:
                    assert response.status_code == 200
                else:
                    refused(response, 503, "DATABASE_RELATED_ERROR", "The database is busy. Try again shortly.")
                    assert response.headers["Retry-After"] == "1"
        assert {(await one).status_code for one in pending} <= {200, 404, 503}
        assert (await http.get("/readiness")).status_code == 200


async def test_a_database_without_free_connections_is_busy(postgres: EmbeddedPostgres) -> None:
    """If PostgreSQL accepts no further connection, requests that need one are answered 503 at once."""
    server, _, _ = postgres.url.rpartition("/")
    async with session(postgres.url) as admin:
        await admin.execute("CREATE ROLE few LOGIN PASSWORD 'few'")
        await admin.execute("CREATE DATABASE few OWNER few")
        with ManagerProcess("--database-url", f"postgresql://few:few@{server.rpartition('@')[2]}/few") as manager:
            async with httpx2.AsyncClient(base_url=manager.url, timeout=50) as http:
                async with locked_tables(f"{server}/few") as locker:
                    pending = [asyncio.create_task(http.get("/v1/jobs"))]
                    await wait_for_blocked_statement(locker, "list_jobs")
                    await admin.execute("ALTER ROLE few CONNECTION LIMIT 0")
                    pending += [asyncio.create_task(http.get("/v1/jobs")) for _ in range(20)]
                    refused(await http.get("/v1/stages"), 503, "DATABASE_RELATED_ERROR")
                assert {(await one).status_code for one in pending} == {200, 503}


@pytest.mark.parametrize("deadline", ["PT0.5S", "PT60S"])
async def test_a_stop_ends_requests_that_cannot_be_answered(
    start_manager: Start, database_url: str, deadline: str
) -> None:
    """At the deadline, or at a second signal, the connections close, and the manager exits with 0."""
    manager = start_manager("--shutdown-timeout", deadline)
    async with (
        httpx2.AsyncClient(base_url=manager.url, timeout=50) as http,
        locked_tables(database_url) as locker,
    ):
        creation = asyncio.create_task(http.post("/v1/jobs", json=BODIES["create_job"]))
        await wait_for_lock_waiters(locker)
        manager.process.send_signal(signal.SIGTERM)
        if deadline == "PT60S":
            with suppress(httpx2.TransportError):  # until it accepts no connections
                while True:
                    await http.get("/liveness", headers={"Connection": "close"})
            manager.process.send_signal(signal.SIGTERM)
        with pytest.raises(httpx2.RemoteProtocolError):
            await creation
        assert await asyncio.to_thread(manager.process.wait, 15) == 0
    assert manager.log.count("requests cancelled: the manager stops") == 1
    assert "Traceback" not in manager.log
