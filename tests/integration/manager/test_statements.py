"""How often a request goes to the database: a number for each operation, whatever is asked for and lies around."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, TypeAlias

import httpx2
import pytest
from asyncpg.connection import LoggedQuery
from reference_manager.api.app import create_app
from reference_manager.engine.engine import Engine
from reference_manager.store.pool import Connection, Database

from tests.support.protocol import Client, branch
from tools.backlog import add_backlog
from tools.docs.openapi import page

Ask: TypeAlias = Callable[..., Awaitable[Any]]
BRIEFLY = {"Prefer": "return=minimal"}

MOST = 500
"""Tasks in a claim, reports in a request, entities in a page."""

HOT = {
    "create_job": 1,
    "create_job of a tree": 1,
    "create_job of a tree with a key": 1,
    "create_job whose key is taken": 1,
    "add_tasks": 1,
    "add_tasks told briefly": 1,
    "claim_tasks": 1,
    "claim_tasks told briefly": 1,
    "claim_tasks of many jobs": 1,
    "dequeue_task": 1,
    "settle_tasks FAILED": 1,
    "settle_tasks of many jobs COMPLETED": 2,
    "settle_tasks told briefly": 2,
}
"""The statements of what is asked most; completed tasks may be the last of their stages, which takes one more."""

OPERATIONS = {
    operation["operationId"] for operations in json.loads(page())["paths"].values() for operation in operations.values()
}


class CountedDatabase(Database):
    """Counts what goes to the server, the beginnings and ends of transactions too."""

    statements = 0

    @asynccontextmanager
    async def connection(self, *, for_workers: bool = False) -> AsyncGenerator[Connection]:
        """A connection that counts."""
        async with super().connection(for_workers=for_workers) as connection:
            connection.add_query_logger(self._count)
            try:
                yield connection
            finally:
                connection.remove_query_logger(self._count)

    def _count(self, logged: LoggedQuery) -> None:
        # What the driver asks about types it asks once for each connection.
        if not any(word in logged.query for word in ("pg_catalog", "'jit'")):
            self.statements += 1


@pytest.fixture
async def counted(database_url: str) -> AsyncGenerator[CountedDatabase]:
    """The connections of the manager in this process."""
    async with CountedDatabase.connect(database_url, connections=10, acquire_timeout=timedelta(seconds=5)) as database:
        assert isinstance(database, CountedDatabase)
        yield database


@pytest.fixture
async def http(counted: CountedDatabase) -> AsyncGenerator[httpx2.AsyncClient]:
    """A client of a manager that does nothing of its own accord."""
    app = create_app(Engine(counted, stale_after=timedelta(minutes=30)), body_limit=1024 * 1024)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://manager") as client:
        yield client


def names(tasks: list[dict[str, Any]], **fields: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - any field
    """Tasks under their leases, as a worker names them."""
    return [{"taskId": task["id"], "leaseId": task["leaseId"]} | fields for task in tasks]


async def ask_for_everything(ask: Ask, database: Database, size: int) -> None:
    """Each operation at least once, about so many tasks, fields or entities as it may be."""
    many = {str(number): number for number in range(size)}
    part = f"limit={min(size, MOST)}"
    job = await ask("create_job", "POST", "/v1/jobs", {"name": "a job", "data": many, "userMetadata": many})
    branches = [branch("tree", size // 10 + 1) for _ in range(min(size, 10))]
    for name, fields in (
        ("of a tree", {"stages": branches}),
        ("of a tree with a key", {"stages": branches, "uniqueKey": str(size)}),
        ("whose key is taken", {"uniqueKey": str(size)}),
    ):
        await ask(f"create_job {name}", "POST", "/v1/jobs", {"name": "a job", "data": many} | fields)
    at_job = f"/v1/jobs/{job['id']}"
    stage = await ask("add_stage", "POST", f"{at_job}/stage", {"type": f"a {size}", "data": many})
    last = await ask("add_stage", "POST", f"{at_job}/stage", {"type": "last", "data": {}, "startAsWaiting": True})
    at_stage, at_last = f"/v1/stages/{stage['id']}", f"/v1/stages/{last['id']}"
    (task, *_) = await ask("add_tasks", "POST", f"{at_stage}/tasks", [{"data": {}}] * size)
    await ask("add_tasks told briefly", "POST", f"{at_stage}/tasks", [{"data": {}}] * size, BRIEFLY)
    at_task = f"/v1/tasks/{task['id']}"
    for path, name in ((at_job, "set_job_metadata"), (at_stage, "set_stage_metadata"), (at_task, "set_task_metadata")):
        await ask(name, "PATCH", f"{path}/user-metadata", many)
    await ask("set_job_priority", "PATCH", f"{at_job}/priority", {"priority": "HIGH"})
    for status in ("PAUSED", "PENDING"):
        await ask(f"set_job_status {status}", "PUT", f"{at_job}/status", {"status": status})

    claim = f"/v1/stages/a%20{size}/tasks/claim"
    wish = {"workerId": "me", "limit": min(size, MOST)}
    taken = (await ask("claim_tasks", "POST", claim, wish))["tasks"]
    running = names(taken, progress={"fraction": 0.5}) * (size // len(taken))
    await ask("heartbeat", "POST", "/v1/workers/me/heartbeat", {"stageTypes": ["a"], "running": running})
    await ask("remove_worker", "DELETE", "/v1/workers/me")
    taken = (await ask("claim_tasks", "POST", claim, wish))["tasks"]
    for outcome in ("FAILED", "RELEASED", "SNOOZED", "COMPLETED"):
        results = names(taken, outcome=outcome)
        await ask(f"settle_tasks {outcome}", "POST", "/v1/tasks/settle", {"workerId": "me", "results": results})
        if outcome != "COMPLETED":
            taken = (await ask("claim_tasks", "POST", claim, wish))["tasks"]
    while taken := (await ask("claim_tasks told briefly", "POST", claim, wish, BRIEFLY))["tasks"]:
        body = {"workerId": "me", "results": names(taken, outcome="COMPLETED")}
        await ask("settle_tasks told briefly", "POST", "/v1/tasks/settle", body, BRIEFLY)
    await ask("set_stage_status", "PUT", f"{at_last}/status", {"status": "PENDING"})
    await ask("add_tasks", "POST", f"{at_last}/tasks", [{"data": {}}] * size)
    dequeued = await ask("dequeue_task", "PATCH", "/v1/stages/last/tasks/dequeue")
    await ask("set_task_status", "PUT", f"/v1/tasks/{dequeued['id']}/status", {"status": "FAILED"})

    for number in range(min(size, MOST)):
        await add_backlog(database, f"many {size}", 1 + number % 2)
    taken = (await ask("claim_tasks of many jobs", "POST", f"/v1/stages/many%20{size}/tasks/claim", wish))["tasks"]
    for outcome in ("COMPLETED", "FAILED"):
        half, taken = taken[: len(taken) // 2 + 1], taken[len(taken) // 2 :]
        body = {"workerId": "me", "results": names(half, outcome=outcome)}
        await ask(f"settle_tasks of many jobs {outcome}", "POST", "/v1/tasks/settle", body)

    lists = {
        "list_jobs": f"/v1/jobs?{part}&should_return_stages=true",
        "list_stages": f"/v1/stages?stage_type=many%20{size}&{part}&should_return_tasks=true",
        "list_stages_of_job": f"{at_job}/stages?{part}",
        "list_tasks": f"/v1/tasks?{part}",
        "list_tasks_of_stage": f"{at_stage}/tasks?{part}",
        "list_tasks of a type": f"/v1/tasks?stage_type=many%20{size}&{part}",
        "get_job": f"{at_job}?should_return_stages=true",
        "get_stage": at_stage,
        "get_stage_summary": f"{at_stage}/summary",
        "get_task": at_task,
        "list_attempts": f"{at_task}/attempts",
        "get_job_history": f"{at_job}/history",
        "get_stage_history": f"{at_stage}/history",
        "get_task_history": f"{at_task}/history",
        "get_queue_depth": f"/v1/queues/many%20{size}/depth",
        "list_workers": "/v1/workers",
        "readiness": "/readiness",
        "metrics": "/metrics",
        "liveness": "/liveness",
        "get_capabilities": "/v1/capabilities",
    }
    for name, path in lists.items():
        await ask(name, "GET", path)
    await ask("heartbeat", "POST", "/v1/workers/me/heartbeat", {"stageTypes": []})
    await ask("order_worker", "PUT", "/v1/workers/me", {"drain": True})
    await ask("set_job_status ABORTED", "PUT", f"{at_job}/status", {"status": "ABORTED"})
    await ask("delete_job", "DELETE", at_job)


async def costs(http: httpx2.AsyncClient, counted: CountedDatabase, database: Database, size: int) -> dict[str, int]:
    """The most statements that each operation took."""
    most = dict[str, int]()

    async def ask(name: str, method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> Any:  # noqa: ANN401 - any JSON
        before = counted.statements
        response = await http.request(method, path, json=body, headers=headers)
        most[name] = max(most.get(name, 0), counted.statements - before)
        assert response.is_success, response.text
        return response.json() if response.headers["Content-Type"] == "application/json" else None

    await ask_for_everything(ask, database, size)
    return most


@pytest.mark.timeout(60)  # writes twenty thousand rows, and five hundred jobs one by one
async def test_an_operation_takes_as_many_statements_for_one_as_for_many(
    http: httpx2.AsyncClient, counted: CountedDatabase, database: Database
) -> None:
    """Neither the size of a request nor that of the tables adds a round trip; no operation takes more than eight."""
    alone = await costs(http, counted, database, 1)
    await add_backlog(database, "in the way", 20_000)
    crowded = await costs(http, counted, database, 1000)
    assert crowded == alone
    assert {name.split(" ")[0] for name in alone} == OPERATIONS
    assert max(alone.values()) <= 8
    assert {name: alone[name] for name in HOT} == HOT


async def test_what_is_at_once_shares_its_statements(http: httpx2.AsyncClient, counted: CountedDatabase) -> None:
    """A hundred claims of a type, and then their hundred reports, take two statements of each kind."""
    stage = await Client(http).stage(await Client(http).job(), "shared")
    await Client(http).tasks(stage, 101)

    before = counted.statements
    taken = await asyncio.gather(*(http.patch("/v1/stages/shared/tasks/dequeue") for _ in range(100)))
    assert counted.statements - before <= 2
    before = counted.statements
    paths = [f"/v1/tasks/{answer.json()['id']}/status" for answer in taken]
    answers = await asyncio.gather(*(http.put(path, json={"status": "COMPLETED"}) for path in paths))
    assert {answer.status_code for answer in answers} == {200}
    assert counted.statements - before <= 2


async def test_a_list_without_a_limit_takes_a_statement_a_page(
    http: httpx2.AsyncClient, counted: CountedDatabase, database: Database
) -> None:
    """What is longer than a page is read by the page, and so is what is inside an entity."""
    stage_id = await add_backlog(database, "long", 3 * MOST)
    few = [await add_backlog(database, "long", 20) for _ in range(9)]
    total = 3 * MOST + 20 * len(few)
    for path, count, statements in (
        ("/v1/tasks", total, 4),
        (f"/v1/tasks?limit={MOST}", MOST, 1),
        (f"/v1/stages/{stage_id}/tasks", 3 * MOST, 1 + 3),
        ("/v1/stages?stage_type=long&should_return_tasks=true", 1 + len(few), 1 + 3),
        ("/v1/jobs?should_return_stages=true", 1 + len(few), 1),
    ):
        before = counted.statements
        assert len((await http.get(path)).json()) == count
        assert counted.statements - before == statements, path
