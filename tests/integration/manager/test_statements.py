"""The number of SQL statements for each operation, whatever the size of the request and the tables."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, TypeAlias

import httpx2
import pytest
from asyncpg.connection import LoggedQuery
from reference_manager.api.app import create_app
from reference_manager.engine.dispatch import reports
from reference_manager.engine.engine import Engine
from reference_manager.server.access import build_gate
from reference_manager.store.pool import Connection, Database

from tests.support.access import sent_by
from tests.support.protocol import Client, branch
from tools.backlog import add_backlog
from tools.docs.openapi import reference

Request: TypeAlias = Callable[..., Awaitable[Any]]
MINIMAL = {"Prefer": "return=minimal"}

MOST = 500
"""The maximum number of tasks in a claim, reports in a request and entities in a page."""

FREQUENT = {
    "create_job": 1,
    "create_job of a tree": 1,
    "create_job of a tree with a key": 1,
    "create_job whose key is taken": 1,
    "create_job with an idempotency key": 1,
    "create_job repeated": 1,
    "add_stage repeated": 3,
    "add_tasks with an idempotency key": 1,
    "add_tasks repeated": 1,
    "add_tasks": 1,
    "add_tasks minimal": 1,
    "claim_tasks": 1,
    "claim_tasks minimal": 1,
    "claim_tasks of many jobs": 1,
    "dequeue_task": 1,
    "heartbeat": 2,
    "settle_tasks FAILED": 1,
    "settle_tasks of many jobs COMPLETED": 2,
    "settle_tasks minimal": 2,
}
"""The number of statements of frequent operations; a completed task may be its stage's last, which takes one more."""

OPERATIONS = {
    operation["operationId"] for operations in reference()["paths"].values() for operation in operations.values()
}


class CountedDatabase(Database):
    """Counts the statements sent to the server, including the start and end of transactions."""

    statements = 0

    @asynccontextmanager
    async def connection(self, *, for_workers: bool = False) -> AsyncGenerator[Connection]:
        """A connection that counts its statements."""
        async with super().connection(for_workers=for_workers) as connection:
            connection.add_query_logger(self._count)
            try:
                yield connection
            finally:
                await asyncio.sleep(0)  # the driver calls its loggers in the next turn of the event loop
                connection.remove_query_logger(self._count)

    def _count(self, logged: LoggedQuery) -> None:
        # The driver asks about types once for each connection.
        if not any(word in logged.query for word in ("pg_catalog", "'jit'")):
            self.statements += 1


@pytest.fixture
async def counted(database_url: str) -> AsyncGenerator[CountedDatabase]:
    """The connections of a manager that runs in this process."""
    async with CountedDatabase.connect(database_url, connections=10, acquire_timeout=timedelta(seconds=5)) as database:
        assert isinstance(database, CountedDatabase)
        yield database


@pytest.fixture
async def http(counted: CountedDatabase) -> AsyncGenerator[httpx2.AsyncClient]:
    """A client of a manager without background tasks."""
    app = create_app(Engine(counted, stale_after=timedelta(minutes=30)), build_gate(counted), body_limit=1024 * 1024)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(sent_by(app)), base_url="http://manager") as client:
        yield client


def lease_references(tasks: list[dict[str, Any]], **fields: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - any field
    """Return the leased tasks as a worker refers to them in requests."""
    return [{"taskId": task["id"], "leaseId": task["leaseId"]} | fields for task in tasks]


async def create_with_keys(request: Request, at_job: str, at_stage: str, size: int) -> None:
    """Send each creation twice with the same idempotency key."""
    many = {str(number): number for number in range(size)}
    tree = {"name": "a job", "data": many, "stages": [branch("tree", size)]}
    for name in ("with an idempotency key", "repeated"):
        keys = [{"Idempotency-Key": f"{size} {number}"} for number in range(3)]
        await request(f"create_job {name}", "POST", "/v1/jobs", tree, keys[0])
        await request(f"add_stage {name}", "POST", f"{at_job}/stage", {"type": f"a {size}", "data": many}, keys[1])
        await request(f"add_tasks {name}", "POST", f"{at_stage}/tasks", [{"data": {}}] * size, keys[2])


async def request_tokens(request: Request, size: int) -> None:
    """Send each operation of tokens, with up to this many limits."""
    limits = [f"type {number}" for number in range(min(size, 100))]
    body = {"name": f"token {size}", "scopes": ["worker"], "stageTypes": limits}
    at_token = f"/v1/tokens/{(await request('create_token', 'POST', '/v1/tokens', body))['id']}"
    await request("rotate_token", "POST", f"{at_token}/rotate", {})
    await request("revoke_token", "POST", f"{at_token}/revoke")
    await request("get_token", "GET", at_token)
    await request("list_tokens", "GET", "/v1/tokens")


async def request_retention(request: Request, size: int) -> None:
    """Send each operation of retention, with up to this many names."""
    rule = {"completedSeconds": 60, "failedSeconds": None, "abortedSeconds": 60, "keepLast": 1}
    rules = {"default": rule, "byName": {f"job {number}": rule for number in range(min(size, MOST))}}
    await request("set_retention", "PUT", "/v1/retention", rules)
    await request("get_retention", "GET", "/v1/retention")


async def request_everything(request: Request, database: Database, size: int) -> None:
    """Send each operation at least once, with up to this many tasks, fields or entities."""
    await request_tokens(request, size)
    many = {str(number): number for number in range(size)}
    part = f"limit={min(size, MOST)}"
    job = await request("create_job", "POST", "/v1/jobs", {"name": "a job", "data": many, "userMetadata": many})
    branches = [branch("tree", size // 10 + 1) for _ in range(min(size, 10))]
    for name, fields in (
        ("of a tree", {"stages": branches}),
        ("of a tree with a key", {"stages": branches, "uniqueKey": str(size)}),
        ("whose key is taken", {"uniqueKey": str(size)}),
    ):
        await request(f"create_job {name}", "POST", "/v1/jobs", {"name": "a job", "data": many} | fields)
    at_job = f"/v1/jobs/{job['id']}"
    stage = await request("add_stage", "POST", f"{at_job}/stage", {"type": f"a {size}", "data": many})
    last = await request("add_stage", "POST", f"{at_job}/stage", {"type": "last", "data": {}, "startAsWaiting": True})
    at_stage, at_last = f"/v1/stages/{stage['id']}", f"/v1/stages/{last['id']}"
    await create_with_keys(request, at_job, at_stage, size)
    (task, *_) = await request("add_tasks", "POST", f"{at_stage}/tasks", [{"data": {}}] * size)
    await request("add_tasks minimal", "POST", f"{at_stage}/tasks", [{"data": {}}] * size, MINIMAL)
    at_task = f"/v1/tasks/{task['id']}"
    for path, name in ((at_job, "set_job_metadata"), (at_stage, "set_stage_metadata"), (at_task, "set_task_metadata")):
        await request(name, "PATCH", f"{path}/user-metadata", many)
    await request("set_job_priority", "PATCH", f"{at_job}/priority", {"priority": "HIGH"})
    for status in ("PAUSED", "PENDING"):
        await request(f"set_job_status {status}", "PUT", f"{at_job}/status", {"status": status})

    claim = f"/v1/stages/a%20{size}/tasks/claim"
    claim_body = {"workerId": "me", "limit": min(size, MOST)}
    taken = (await request("claim_tasks", "POST", claim, claim_body))["tasks"]
    running = lease_references(taken, progress={"fraction": 0.5}) * (size // len(taken))
    await request("heartbeat", "POST", "/v1/workers/me/heartbeat", {"stageTypes": ["a"], "running": running})
    await request("remove_worker", "DELETE", "/v1/workers/me")
    taken = (await request("claim_tasks", "POST", claim, claim_body))["tasks"]
    for outcome in ("FAILED", "RELEASED", "SNOOZED", "COMPLETED"):
        results = lease_references(taken, outcome=outcome)
        await request(f"settle_tasks {outcome}", "POST", "/v1/tasks/settle", {"workerId": "me", "results": results})
        if outcome != "COMPLETED":
            taken = (await request("claim_tasks", "POST", claim, claim_body))["tasks"]
    while taken := (await request("claim_tasks minimal", "POST", claim, claim_body, MINIMAL))["tasks"]:
        body = {"workerId": "me", "results": lease_references(taken, outcome="COMPLETED")}
        await request("settle_tasks minimal", "POST", "/v1/tasks/settle", body, MINIMAL)
    await request("set_stage_status", "PUT", f"{at_last}/status", {"status": "PENDING"})
    await request("add_tasks", "POST", f"{at_last}/tasks", [{"data": {}}] * size)
    dequeued = await request("dequeue_task", "PATCH", "/v1/stages/last/tasks/dequeue")
    await request("set_task_status", "PUT", f"/v1/tasks/{dequeued['id']}/status", {"status": "FAILED"})

    for number in range(min(size, MOST)):
        await add_backlog(database, f"many {size}", 1 + number % 2)
    taken = (await request("claim_tasks of many jobs", "POST", f"/v1/stages/many%20{size}/tasks/claim", claim_body))[
        "tasks"
    ]
    for outcome in ("COMPLETED", "FAILED"):
        half, taken = taken[: len(taken) // 2 + 1], taken[len(taken) // 2 :]
        body = {"workerId": "me", "results": lease_references(half, outcome=outcome)}
        await request(f"settle_tasks of many jobs {outcome}", "POST", "/v1/tasks/settle", body)

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
        await request(name, "GET", path)
    await request("heartbeat", "POST", "/v1/workers/me/heartbeat", {"stageTypes": []})
    await request("order_worker", "PUT", "/v1/workers/me", {"drain": True})
    await request_retention(request, size)
    await request("set_job_status ABORTED", "PUT", f"{at_job}/status", {"status": "ABORTED"})
    await request("delete_job", "DELETE", at_job)


async def statement_counts(
    http: httpx2.AsyncClient, counted: CountedDatabase, database: Database, size: int
) -> dict[str, int]:
    """Return the largest number of statements for each operation."""
    most = dict[str, int]()

    async def request(
        name: str, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> Any:  # noqa: ANN401 - any JSON
        before = counted.statements
        response = await http.request(method, path, json=body, headers=headers)
        most[name] = max(most.get(name, 0), counted.statements - before)
        assert response.is_success, response.text
        return response.json() if response.headers["Content-Type"] == "application/json" else None

    await request_everything(request, database, size)
    return most


@pytest.mark.timeout(180)  # writes twenty thousand rows, and five hundred jobs one by one
async def test_the_number_of_statements_does_not_depend_on_the_size(
    http: httpx2.AsyncClient, counted: CountedDatabase, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither large requests nor large tables add a round trip, and no operation takes more than nine."""
    # Otherwise, the number for a report would depend on earlier reports.
    monkeypatch.setattr(reports, "MAX_SKIPS", 0)
    alone = await statement_counts(http, counted, database, 1)
    await add_backlog(database, "in the way", 20_000)
    crowded = await statement_counts(http, counted, database, 1000)
    assert crowded == alone
    assert {name.split(" ")[0] for name in alone} == OPERATIONS
    assert max(alone.values()) <= 10
    assert {name: alone[name] for name in FREQUENT} == FREQUENT


async def test_concurrent_requests_share_statements(http: httpx2.AsyncClient, counted: CountedDatabase) -> None:
    """A hundred concurrent claims of a type take at most two statements, and so do their hundred reports."""
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


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "a key"}])
async def test_a_new_task_is_handed_over_by_the_statement_that_adds_it(
    http: httpx2.AsyncClient, counted: CountedDatabase, headers: dict[str, str]
) -> None:
    """Where a claim waits, a creation takes one statement, which also serves the claim."""
    stage = await Client(http).stage(await Client(http).job(), "awaited")
    await Client(http).tasks(stage, 1)
    claim = {"workerId": "me", "waitSeconds": 20}
    await http.post("/v1/stages/awaited/tasks/claim", json=claim)
    waiting = asyncio.create_task(http.post("/v1/stages/awaited/tasks/claim", json=claim))
    for _ in range(2):  # the first one may arrive before the claim that waits
        assert (await http.patch("/v1/stages/awaited/tasks/dequeue")).status_code == 404
    before = counted.statements
    (added,) = (await http.post(f"/v1/stages/{stage['id']}/tasks", json=[{"data": {}}], headers=headers)).json()
    (task,) = (await waiting).json()["tasks"]
    assert counted.statements - before == 1
    assert (added["status"], task["id"], task["status"]) == ("PENDING", added["id"], "IN_PROGRESS")


async def test_concurrent_heartbeats_share_statements(http: httpx2.AsyncClient, counted: CountedDatabase) -> None:
    """A hundred concurrent heartbeats take at most two batches of two statements."""
    before = counted.statements
    body = {"stageTypes": ["any"]}
    answers = await asyncio.gather(*(http.post(f"/v1/workers/w{number}/heartbeat", json=body) for number in range(100)))
    assert {answer.status_code for answer in answers} == {200}
    assert counted.statements - before <= 4


async def test_a_list_without_a_limit_takes_one_statement_per_page(
    http: httpx2.AsyncClient, counted: CountedDatabase, database: Database
) -> None:
    """A list longer than a page is read page by page, and so are the lists inside an entity."""
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
