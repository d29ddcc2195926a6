"""Commands that wait for a lock of another session leave the connections of the manager to other requests."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

import httpx2
import pytest
from reference_manager.api.app import create_app
from reference_manager.api.common.bodies import LARGE, LARGE_AT_ONCE
from reference_manager.api.common.disconnects import CLIENT_STATE
from reference_manager.api.common.disconnects import Client as ConnectedClient
from reference_manager.domain.commands import Report
from reference_manager.domain.states import Outcome, TaskStatus
from reference_manager.engine.dispatch.reports import ReportBatcher, Settlements, Verdict
from reference_manager.engine.engine import Engine
from reference_manager.server.access import build_gate
from reference_manager.server.admission import Admission
from reference_manager.store.pool import Database, sql
from starlette.types import Message, Scope

from tests.support.access import sent_by
from tests.support.protocol import Client, branch, refused
from tests.support.sessions import ROW_LOCKS, Session, lock_waiters, wait_for_lock_waiters
from tests.support.worker import LeasedWorker
from tools.manager import ManagerProcess

Start: TypeAlias = Callable[..., ManagerProcess]
JOB_LOCK = "SELECT pg_advisory_xact_lock(job_key($1))"
WORKER_LOCK = "SELECT FROM workers WHERE id = $1::uuid::text FOR UPDATE"
EACH = 4
"""The number of commands of each kind that wait at the same time."""


class Command(NamedTuple):
    """A command on a job of its own that needs a lock."""

    method: str
    path: str
    body: object = None
    lock: str = JOB_LOCK
    final: bool = False
    """Whether the job has ended."""


COMMANDS = {
    "pause": Command("PUT", "/v1/jobs/{job}/status", {"status": "PAUSED"}),
    "abort": Command("PUT", "/v1/jobs/{job}/status", {"status": "ABORTED"}, ROW_LOCKS["stage"]),
    "change the priority": Command("PATCH", "/v1/jobs/{job}/priority", {"priority": "LOW"}, ROW_LOCKS["job"]),
    "delete": Command("DELETE", "/v1/jobs/{job}", final=True),
    "add a stage": Command("POST", "/v1/jobs/{job}/stage", {"type": "more", "data": {}}),
    "add tasks": Command("POST", "/v1/stages/{stage}/tasks", [{"data": {}}]),
    "add tasks to a locked stage": Command("POST", "/v1/stages/{stage}/tasks", [{"data": {}}], ROW_LOCKS["stage"]),
    "release": Command("PUT", "/v1/stages/{stage}/status", {"status": "PENDING"}),
    "change a job": Command("PATCH", "/v1/jobs/{job}/user-metadata", {"new": 1}, ROW_LOCKS["job"]),
    "change a stage": Command("PATCH", "/v1/stages/{stage}/user-metadata", {"new": 1}, ROW_LOCKS["stage"]),
    "change a task": Command("PATCH", "/v1/tasks/{task}/user-metadata", {"new": 1}, ROW_LOCKS["task"]),
    "drain": Command("PUT", "/v1/workers/{job}", {"drain": True}, WORKER_LOCK),
    "deregister": Command("DELETE", "/v1/workers/{job}", None, WORKER_LOCK),
    "create a unique job": Command(
        "POST",
        "/v1/jobs",
        {"name": "a job", "data": {}, "uniqueKey": "{job}"},
        "SELECT FROM job_keys WHERE job_id = $1 FOR UPDATE",
    ),
}


@pytest.fixture
async def http(start_manager: Start) -> AsyncGenerator[httpx2.AsyncClient]:
    """A client of a manager with four database connections, of which two serve commands and reads."""
    limits = httpx2.Limits(max_connections=None)
    manager = start_manager("--database-connections", "4")
    async with httpx2.AsyncClient(base_url=manager.url, limits=limits, timeout=60) as client:
        yield client


async def prepare(client: Client, command: Command) -> tuple[UUID, httpx2.Request]:
    """Create what the command needs, and return its job and the request."""
    stage = branch("a type", 1) | {"startAsWaiting": True}
    job = await client.job(stages=[stage])
    fields = {"job": job["id"], "stage": job["stages"][0]["id"]}
    fields["task"] = (await client.read(job["stages"][0]))["tasks"][0]["id"]
    await client.http.post(f"/v1/workers/{job['id']}/heartbeat", json={"stageTypes": []})
    if command.final:
        await client.move(job, "ABORTED")
    if command.path == "/v1/jobs":
        job = await client.job(uniqueKey=job["id"])
    body = json.loads(json.dumps(command.body).replace("{job}", fields["job"]))
    path = command.path.format_map(fields)
    return UUID(job["id"]), client.http.build_request(command.method, path, json=body)


@pytest.mark.timeout(120)  # sends hundreds of requests
async def test_commands_that_wait_for_a_lock_leave_connections_to_others(
    http: httpx2.AsyncClient, connection: Session, other: Session
) -> None:
    """Commands of every kind wait on one connection at most. Each is executed once when its lock is released."""
    client = Client(http)
    free = await client.job()
    prepared = [
        (name, command, *await prepare(client, command)) for name, command in COMMANDS.items() for _ in range(EACH)
    ]
    async with other.transaction():
        for _, command, job, _ in prepared:
            await other.execute(command.lock, job)
        sent = [asyncio.create_task(http.send(request)) for *_, request in prepared]
        await wait_for_lock_waiters(connection)
        for _ in range(20):
            assert await client.status(free) == "PENDING"
            await client.stage(free, "any")
            assert await lock_waiters(connection) <= 1
        assert not any(one.done() for one in sent)
    for (name, *_), answer in zip(prepared, await asyncio.gather(*sent), strict=True):
        assert answer.is_success, (name, answer.text)
    counts = "SELECT count(*), count(DISTINCT stage_id) FROM tasks WHERE stage_id IN (SELECT id FROM stages)"
    deleted, added, unique = EACH, 2 * EACH, EACH
    assert tuple(await connection.fetchrow(counts) or ()) == (
        len(prepared) - deleted + added,
        len(prepared) - deleted,
    )
    assert await connection.fetchval("SELECT count(*) FROM jobs") == len(prepared) - deleted + unique + 1
    statuses = await connection.fetch("SELECT status, count(*) FROM jobs GROUP BY status ORDER BY status")
    assert {row["status"]: row["count"] for row in statuses} == {
        "PENDING": len(prepared) - 3 * EACH + unique + 1,
        "PAUSED": EACH,
        "ABORTED": EACH,
    }


async def test_large_requests_that_wait_for_a_lock_let_others_be_served(
    http: httpx2.AsyncClient, connection: Session, other: Session
) -> None:
    """As many large requests as are served at once wait; another one is served meanwhile."""
    client = Client(http)
    command = COMMANDS["add tasks"]._replace(body=[{"data": {"large": "x" * LARGE}}])
    prepared = [await prepare(client, command) for _ in range(LARGE_AT_ONCE + 1)]
    _, free = prepared.pop()
    async with other.transaction():
        for job, _ in prepared:
            await other.execute(JOB_LOCK, job)
        sent = [asyncio.create_task(http.send(request)) for _, request in prepared]
        await wait_for_lock_waiters(connection)
        assert (await http.send(free)).status_code == 201
        assert not any(one.done() for one in sent)
    assert [answer.status_code for answer in await asyncio.gather(*sent)] == [201] * LARGE_AT_ONCE


@pytest.mark.timeout(180)  # waits for 10 s until the commands give up
async def test_a_command_whose_lock_is_not_released_is_refused(
    http: httpx2.AsyncClient, connection: Session, other: Session
) -> None:
    """It changes nothing. Commands on the same job fail together, and those that follow are executed."""
    client = Client(http)
    command = COMMANDS["add tasks"]
    job, request = await prepare(client, command)
    async with other.transaction():
        await other.execute(command.lock, job)
        answers = await asyncio.gather(*(http.send(request) for _ in range(3)))
    for answer in answers:
        refused(answer, 503, "DATABASE_RELATED_ERROR", "The database is busy. Try again shortly.")
        assert answer.headers["Retry-After"] == "1"
    assert (await http.send(request)).status_code == 201
    assert await connection.fetchval("SELECT count(*) FROM tasks") == 2


async def test_the_command_of_a_client_that_disconnects_is_dropped(
    database: Database, connection: Session, other: Session
) -> None:
    """It is not executed when the lock is released later."""
    app = sent_by(
        create_app(Engine(database, stale_after=timedelta(minutes=30)), build_gate(database), body_limit=1024)
    )
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://manager") as http:
        job, request = await prepare(Client(http), COMMANDS["add tasks"])
    sent: list[Message] = []
    client = ConnectedClient()

    async def receive() -> Message:
        client.disconnect()
        return {"type": "http.request", "body": request.content, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {
        "type": "http",
        "method": "POST",
        "path": request.url.path,
        "raw_path": request.url.raw_path,
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        "state": {CLIENT_STATE: client},
    }
    async with other.transaction():
        await other.execute(JOB_LOCK, job)
        await Admission(app)(scope, receive, send)
    assert sent[0]["status"] == 503
    assert await connection.fetchval("SELECT count(*) FROM tasks") == 1


@pytest.mark.parametrize(
    "lock",
    [
        *ROW_LOCKS.values(),
        "SELECT FROM stages WHERE job_id = $1 AND position = 2 FOR UPDATE",
        "SELECT FROM leases WHERE stage_id IN (SELECT id FROM stages WHERE job_id = $1) FOR UPDATE",
    ],
    ids=[*ROW_LOCKS, "next stage", "lease"],
)
async def test_a_locked_row_is_attributed_to_its_own_job(
    http: httpx2.AsyncClient, database: Database, other: Session, lock: str
) -> None:
    """Of a batch of reports, exactly those of the job are found that needs the row."""
    client, worker = Client(http), LeasedWorker(http)
    jobs = [await client.job(stages=[branch("first", 2), branch("next", 1)]) for _ in range(3)]
    tasks = [UUID(task["id"]) for task in await worker.claim("first", 6)]
    async with other.transaction():
        await other.execute(lock, UUID(jobs[1]["id"]))
        async with database.connection() as connection:
            rows = [row async for row in sql.task_find_locked(connection, ids=[*tasks, UUID(int=0)])]
    expected = [(UUID(job["id"]), job is jobs[1]) for job in jobs for _ in range(2)]
    assert [tuple(row) for row in rows] == [*expected, (None, False)]


async def test_only_the_first_report_of_a_locked_job_delays_others(
    database: Database, other: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it waits, further reports of its job are recognised before they wait for the lock together with others."""
    engine = Engine(database, stale_after=timedelta(minutes=30))
    app = sent_by(create_app(engine, build_gate(database), body_limit=1024))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://manager") as http:
        client, worker = Client(http), LeasedWorker(http)
        held, free = [
            (UUID((await client.job(stages=[branch(name, 5)]))["id"]), await worker.claim(name, 5))
            for name in ("held", "free")
        ]
    delayed: list[int] = []
    separate: Any = getattr(Settlements, "_separate")  # noqa: B009 - not a part of its interface

    async def count(self: Settlements, reports: Sequence[Report]) -> Sequence[ReportBatcher]:
        delayed.append(len(reports))
        return await separate(self, reports)

    def settle(task: Mapping[str, Any]) -> asyncio.Future[Sequence[Verdict]]:
        return engine.queue.settle([Report(UUID(task["id"]), int(task["leaseId"]), worker.id, Outcome.COMPLETED)])

    monkeypatch.setattr(Settlements, "_separate", count)
    async with other.transaction():
        await other.execute(ROW_LOCKS["stage"], held[0])
        waiting: list[asyncio.Future[Sequence[Verdict]]] = []
        for one, stranger in zip(held[1], free[1], strict=True):
            waiting.append(settle(one))
            (verdict,) = await settle(stranger)
            assert verdict.target is TaskStatus.COMPLETED
        assert len(delayed) == 1
        assert not any(one.done() for one in waiting)
    for one in waiting:
        assert [verdict.target for verdict in await one] == [TaskStatus.COMPLETED]
