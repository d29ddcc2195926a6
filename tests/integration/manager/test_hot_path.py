"""The hot path responds like the framework's routes, and follows HTTP."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, closing
from datetime import timedelta
from typing import Any, cast
from urllib.parse import urlsplit
from uuid import uuid4

import httpx2
import pytest
from reference_manager.api.app import create_app
from reference_manager.api.common.bodies import LARGE
from reference_manager.api.common.disconnects import CLIENT_STATE
from reference_manager.api.common.disconnects import Client as ConnectedClient
from reference_manager.api.hot_path import HotPath
from reference_manager.engine.engine import Engine
from reference_manager.server.access import build_gate
from reference_manager.store.pool import Database
from starlette.types import Message, Receive, Scope, Send

from tests.support.access import sent_by
from tests.support.protocol import Client
from tests.support.sessions import Session, wait_for_lock_waiters
from tests.support.worker import LeasedWorker
from tests.support.worker import report as leased_report

JSON = {"Content-Type": "application/json"}
MINIMAL = {"Prefer": "return=minimal"}
UNKNOWN = str(uuid4())
BODY_LIMIT = 2 * LARGE

VARYING = re.compile(
    r'[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|"[0-9-]{10}T[0-9:.]{12}Z"|(?<="leaseId":)\d+|(?<="waitedSeconds":)[0-9.]+'
)
"""What differs between two responses to one request: ids, times and leases."""


class Both:
    """Sends each request to the hot path and to the framework, which share an engine."""

    def __init__(self, database: Database, *, body_limit: int = BODY_LIMIT) -> None:
        engine = Engine(database, stale_after=timedelta(minutes=30))
        gate = build_gate(database)
        self._framework = create_app(engine, gate, body_limit=body_limit)
        self.close = self._framework.state.bodies.close
        self.hot_path = HotPath(self._serve_by_framework, engine, gate, body_limit=body_limit)
        self._left = 0
        """The number of requests that the hot path left to the framework."""
        self.hot, self.direct = (
            httpx2.AsyncClient(transport=httpx2.ASGITransport(sent_by(app)), base_url="http://manager")
            for app in (self.hot_path, self._framework)
        )

    async def _serve_by_framework(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._left += 1
        await self._framework(scope, receive, send)

    async def send(
        self, method: str, path: str, content: bytes = b"", headers: dict[str, str] = JSON
    ) -> tuple[int, bool]:
        """Send a request both ways, and compare status, headers and body.

        Returns:
            The status, and whether the hot path served the request without the framework.
        """
        return await self.send_two(method, (path, path), content, headers)

    async def send_two(
        self, method: str, paths: tuple[str, str], content: bytes = b"", headers: dict[str, str] = JSON
    ) -> tuple[int, bool]:
        """Do the same as ``send``, with a path of its own for each way."""
        left = self._left
        hot = await self.hot.request(method, paths[0], content=content, headers=headers)
        is_hot = self._left == left
        other = await self.direct.request(method, paths[1], content=content, headers=headers)
        assert _comparable(hot) == _comparable(other), (method, paths, content[:1000], headers)
        return hot.status_code, is_hot


def _comparable(response: httpx2.Response) -> tuple[int, list[tuple[bytes, bytes]], str]:
    # A lease may have one digit more than another.
    assert response.headers.get("content-length", "0") == str(len(response.content))
    headers = [header for header in response.headers.raw if header[0] != b"content-length"]
    return response.status_code, headers, VARYING.sub("…", response.text)


@pytest.fixture
def both(database: Database) -> Generator[Both]:
    """A hot path and a framework on one engine."""
    with closing(Both(database)) as both:
        yield both


def encode(body: Any) -> bytes:  # noqa: ANN401 - any JSON
    """Return a body as JSON, in which numbers may be NaN or infinite."""
    return json.dumps(body).encode()


async def test_ordinary_requests_are_served_alike(both: Both) -> None:
    """The hot path serves every kind of success and of refusal by the engine, and responds as the framework does."""
    direct, worker = Client(both.direct), LeasedWorker(both.direct)
    stage = await direct.stage(await direct.job(), "one")
    tasks = f"/v1/stages/{stage['id']}/tasks"
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    async def check(expected: int, method: str, path: str, body: Any = None, **headers: str) -> None:  # noqa: ANN401 - any JSON
        content = b"" if body is None else encode(body)
        for preference in ({}, MINIMAL):
            sent = (JSON if content else {}) | preference | headers
            assert await both.send(method, path, content, sent) == (expected, True), (method, path, body)

    await check(201, "POST", "/v1/jobs", {"name": "a job", "data": {}}, traceparent=parent, tracestate="a=1")
    tree: dict[str, Any] = {"name": "a job", "data": {}, "stages": [{"type": "x", "data": {}, "tasks": [{"data": {}}]}]}
    await check(201, "POST", "/v1/jobs", tree)
    await direct.job(uniqueKey="once")
    await check(200, "POST", "/v1/jobs", {"name": "a job", "data": {}, "uniqueKey": "once"})

    await check(201, "POST", tasks, [{"data": {"text": "ä"}, "delaySeconds": 0}] * 3, traceparent=parent)
    await check(201, "POST", tasks, [], traceparent="nonsense")
    await check(404, "POST", f"/v1/stages/{UNKNOWN}/tasks", [{"data": {}}])

    for limit in (1, 2.0):
        await check(200, "POST", "/v1/stages/one/tasks/claim", {"workerId": "me", "limit": limit})
    await check(200, "POST", "/v1/stages/none/tasks/claim", {"workerId": "me"})
    await check(200, "POST", "/v1/stages/none%2F%C3%A4/tasks/claim", {"workerId": "me"})

    await direct.tasks(await direct.stage(await direct.job(), "held"), 3)
    held = await worker.claim("held", 3)
    running = [{"taskId": task["id"], "leaseId": task["leaseId"], "progress": {"fraction": 0.5}} for task in held]
    lost = {"taskId": UNKNOWN, "leaseId": 1}
    heartbeat = {"stageTypes": ["one"], "running": [*running, lost]}
    await check(200, "POST", f"/v1/workers/{worker.id}/heartbeat", heartbeat)
    results = [leased_report(held[0], "COMPLETED", result={"a": 1}), leased_report(held[1], "FAILED"), lost, "nonsense"]
    await check(200, "POST", "/v1/tasks/settle", {"workerId": worker.id, "results": results})
    await check(
        200, "POST", "/v1/tasks/settle", {"workerId": "other", "results": [leased_report(held[2], "COMPLETED")]}
    )

    await check(201, "POST", tasks, [{"data": {}}] * 3)
    await check(200, "PATCH", "/v1/stages/one/tasks/dequeue")
    await check(404, "PATCH", "/v1/stages/none/tasks/dequeue")
    for status in ("COMPLETED", "FAILED"):
        body, claimed = {"status": status}, [(await direct.claimed("one"))["id"] for _ in range(2)]
        first, second = (f"/v1/tasks/{task_id}/status" for task_id in claimed)
        assert await both.send_two("PUT", (first, second), encode(body)) == (200, True)
        await check(400, "PUT", first, body)
        await check(409, "PUT", f"/v1/tasks/{held[2]['id']}/status", body)
        await check(404, "PUT", f"/v1/tasks/{UNKNOWN}/status", body)


VALID: dict[str, tuple[str, Any]] = {
    "/v1/stages/none/tasks/claim": ("POST", {"workerId": "me", "limit": 1, "waitSeconds": 0, "leaseSeconds": 30}),
    "/v1/tasks/settle": (
        "POST",
        {
            "workerId": "me",
            "results": [
                {
                    "taskId": UNKNOWN,
                    "leaseId": 1,
                    "outcome": "FAILED",
                    "result": 1,
                    "error": {"type": "Error", "message": "", "stack": ""},
                    "retryable": True,
                    "delaySeconds": 1,
                    "checkpoint": {},
                }
            ],
        },
    ),
    "/v1/workers/me/heartbeat": (
        "POST",
        {
            "stageTypes": ["one"],
            "host": "host",
            "version": "1",
            "running": [
                {"taskId": UNKNOWN, "leaseId": 1, "progress": {"fraction": 0.5, "etaSeconds": 1}, "checkpoint": 1}
            ],
            "draining": False,
        },
    ),
    f"/v1/stages/{UNKNOWN}/tasks": (
        "POST",
        [
            {
                "data": {},
                "userMetadata": {},
                "maxAttempts": 3,
                "timeoutSeconds": 1,
                "retry": {"strategy": "fixed"},
                "availableAt": "2026-01-31T12:00:00Z",
                "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            }
        ],
    ),
    "/v1/jobs": (
        "POST",
        {
            "name": "a job",
            "data": {},
            "priority": "LOW",
            "stages": [{"type": "x", "data": {}, "tasks": [{"data": {}}]}],
            "uniqueFor": 1,
        },
    ),
    f"/v1/tasks/{UNKNOWN}/status": ("PUT", {"status": "COMPLETED"}),
}
"""A valid request for each path that takes a body."""
ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 0.0, 0.01, 2**31, 2**53, 10**400, 1e300, float("nan"), float("inf")),
    *("", "x", "1", "true", "\0", "ä" * 300, "2026-02-30", "00000000-0000-0000-0000-00000000000A"),
    *([], {}, [[]], [None], {"more": 1}, {"a": [float("-inf")]}),
)


def mutations(value: Any) -> Generator[Any]:  # noqa: ANN401 - any JSON
    """Yield copies of a value with one odd, missing or additional part each."""
    yield from ODD
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        yield fields | {"more": 1}
        for name, member in fields.items():
            yield {other: fields[other] for other in fields if other != name}
            yield from (fields | {name: mutated} for mutated in mutations(member))
    elif isinstance(value, list):
        items = cast("list[Any]", value)
        yield items * 2
        for index, member in enumerate(items):
            yield from ([*items[:index], mutated, *items[index + 1 :]] for mutated in mutations(member))


@pytest.mark.timeout(180)  # thousands of requests
async def test_odd_bodies_are_served_alike(both: Both) -> None:
    """The hot path accepts exactly what the framework accepts; only accepted bodies take it."""
    for path, (method, valid) in VALID.items():
        for body in mutations(valid):
            status, is_hot = await both.send(method, path, encode(body))
            assert is_hot == (status in {200, 201, 404}), (status, body)


RAW_BODIES = (
    *(b"", b" ", b"{", b"{}{}", b"null", b"[]", b'{"a": "\\ud800"}', b'{"a": "\xff"}', b"\xef\xbb\xbf{}"),
    *(b"[" * 300, b'{"a":' * 300, b'{"status": "FAILED", "status": "COMPLETED"}', '{"a": 1}'.encode("utf-16")),
)


async def test_bodies_that_are_not_json_are_served_alike(both: Both) -> None:
    """A body that cannot be parsed gets the framework's refusal."""
    for path, (method, _) in VALID.items():
        for content in RAW_BODIES:
            status, is_hot = await both.send(method, path, content)
            assert is_hot == (status != 400), content


async def test_odd_headers_are_served_alike(both: Both) -> None:
    """Other media types, other preferences and query parameters are left to the framework."""
    for path, (method, valid) in VALID.items():
        for headers, suffix in (
            ({}, ""),
            ({"Content-Type": "text/plain"}, ""),
            ({"Content-Type": "application/json; charset=utf-8"}, ""),
            ({"Content-Type": "application/json; charset=utf-16"}, ""),
            ({"Content-Type": "application/problem+json"}, ""),
            (JSON | {"Prefer": "return=representation"}, ""),
            (JSON | {"Prefer": "wait=1, return=minimal"}, ""),
            (JSON | {"Idempotency-Key": 256 * "x"}, ""),
            (JSON, "?unknown=1"),
            (JSON, "/"),
        ):
            assert (await both.send(method, path + suffix, encode(valid), headers))[1] is False, (headers, suffix)


async def test_idempotency_keys_are_the_same_on_both_ways(both: Both) -> None:
    """What one way has created, the other one finds; requests that create nothing ignore the key."""
    for path, (method, valid) in VALID.items():
        status, is_hot = await both.send(method, path, encode(valid), JSON | {"Idempotency-Key": "a key"})
        assert (is_hot, status) == (True, (await both.send(method, path, encode(valid)))[0])
    answers = [
        await client.post("/v1/jobs", content=b'{"name": "a job", "data": {}}', headers=JSON | {"Idempotency-Key": key})
        for key, clients in (("a", (both.hot, both.direct)), ("b", (both.direct, both.hot)))
        for client in clients
    ]
    assert [answer.status_code for answer in answers] == [201] * 4
    assert len({answer.content for answer in answers[:2]}) == len({answer.content for answer in answers[2:]}) == 1


async def test_odd_paths_are_served_alike(both: Both) -> None:
    """Parameters that are not valid, and paths and methods that do not exist, are left to the framework."""
    for path, (method, valid) in VALID.items():
        content = encode(valid)
        parts = path.split("/")
        for other in ("GET", "PATCH", "DELETE", "OPTIONS"):
            assert (await both.send(other, path, content))[1] is False
        for part in range(2, len(parts)):
            for odd in ("%00", "%FF", "%2E", "%2E%2E", "x" * 300, "", "%20" * 3, "settle", UNKNOWN.replace("-", "")):
                await both.send(method, "/".join([*parts[:part], odd, *parts[part + 1 :]]), content)
    for stage_type in ("%00", "%FF", "x" * 51, ""):
        path = f"/v1/stages/{stage_type}/tasks/dequeue"
        assert (await both.send("PATCH", path, b"", {}))[1] is False
    assert (await both.send("PATCH", "/v1/stages/none/tasks/dequeue?wait=1", b"", {}))[1] is False


async def test_large_bodies_are_left_to_the_framework(both: Both) -> None:
    """The hot path serves bodies up to the size from which another process parses them."""
    path = f"/v1/stages/{UNKNOWN}/tasks"
    for size, status, is_hot in ((LARGE, 404, True), (LARGE + 1, 404, False), (BODY_LIMIT + 1, 413, False)):
        assert await both.send("POST", path, b'[{"data": {}}]'.ljust(size)) == (status, is_hot)


async def test_a_small_body_limit_applies_to_the_hot_path(database: Database) -> None:
    """A body above the limit is refused, even if it is small."""
    both = Both(database, body_limit=100)
    for size, expected in ((100, (404, True)), (101, (413, False))):
        assert await both.send("POST", f"/v1/stages/{UNKNOWN}/tasks", b"[]".ljust(size)) == expected


async def test_a_client_that_disconnects_gets_no_task(both: Both, connection: Session) -> None:
    """A claim without a lease ends when its client disconnects, and a task claimed for it meanwhile is released."""
    direct = Client(both.direct)
    (task,) = await direct.tasks(await direct.stage(await direct.job(), "one"))
    gone = ConnectedClient()

    async def receive() -> Message:
        raise AssertionError("a claim without a lease has no body")

    async def send(_message: Message) -> None:
        pass

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await sent_by(both.hot_path)(scope, receive, send)

    path = "/v1/stages/one/tasks/dequeue"
    scope: Scope = {
        "type": "http",
        "method": "PATCH",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [],
        "state": {CLIENT_STATE: gone},
    }
    async with connection.transaction():
        await connection.execute("LOCK TABLE tasks IN ACCESS EXCLUSIVE MODE")
        request = asyncio.create_task(serve(scope, receive, send))
        await wait_for_lock_waiters(connection)
        gone.disconnect()
        await request
    while (again := await direct.claim("one")) is None:
        pass
    assert (again["id"], again["attempts"]) == (task["id"], 0)


class RawConnection:
    """A connection on which a test sends exact bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, text: str) -> None:
        """Send a text."""
        self._writer.write(text.encode())
        await self._writer.drain()

    async def receive(self) -> tuple[int, dict[str, str], dict[str, str]]:
        """Return the status, headers and JSON of the next response."""
        status, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        body = await self._reader.readexactly(int(headers["content-length"]))
        return int(status.split(" ")[1]), headers, json.loads(body)

    async def receive_continue(self) -> None:
        """Receive 100 Continue, which has no headers and no body."""
        assert await self._reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"

    async def is_closed(self) -> bool:
        """Whether the manager closes the connection without sending anything more."""
        return await self._reader.read() == b""

    async def aclose(self) -> None:
        """Close the connection."""
        self._writer.close()
        await self._writer.wait_closed()


@pytest.fixture
async def raw(manager_url: str) -> AsyncGenerator[RawConnection]:
    """A raw connection to the shared manager."""
    address = urlsplit(manager_url)
    async with aclosing(RawConnection(*await asyncio.open_connection(address.hostname, address.port))) as opened:
        yield opened


def claim(stage_type: str, *headers: str) -> str:
    """Return the bytes of a claim as text."""
    return "\r\n".join([f"PATCH /v1/stages/{stage_type}/tasks/dequeue HTTP/1.1", "Host: manager", *headers, "", ""])


def report(task_id: str, body: str, *headers: str) -> str:
    """Return the bytes of a report as text."""
    head = [f"PUT /v1/tasks/{task_id}/status HTTP/1.1", "Host: manager", "Content-Type: application/json"]
    return "\r\n".join([*head, f"Content-Length: {len(body)}", *headers, "", body])


async def test_one_connection_serves_hot_path_and_other_requests(
    client: Client, raw: RawConnection, stage_type: str
) -> None:
    """Claims, reports and other requests can follow each other on one connection."""
    (task,) = await client.tasks(await client.stage(await client.job(), stage_type))
    await raw.send(claim(stage_type))
    status, headers, claimed = await raw.receive()
    assert (status, claimed["id"], claimed["status"]) == (200, task["id"], "IN_PROGRESS")
    assert headers["content-type"] == "application/json"
    assert "date" in headers
    await raw.send("GET /liveness HTTP/1.1\r\nHost: manager\r\n\r\n")
    assert (await raw.receive())[0] == 200
    await raw.send(report(task["id"], '{"status": "COMPLETED"}'))
    assert (await raw.receive())[2]["status"] == "COMPLETED"
    await raw.send(report(task["id"], '{"status": "COMPLETED"}'))
    status, _, refusal = await raw.receive()
    assert (status, refusal["code"]) == (400, "ILLEGAL_TASK_STATUS_TRANSITION")


async def test_a_report_may_arrive_in_pieces(client: Client, raw: RawConnection, stage_type: str) -> None:
    """The head and the body of a report may arrive separately and in several pieces."""
    await client.tasks(await client.stage(await client.job(), stage_type))
    task = await client.claimed(stage_type)
    for piece in report(task["id"], '{"status": "COMPLETED"}').partition("\r\n\r\n"):
        for half in (piece[: len(piece) // 2], piece[len(piece) // 2 :]):
            await raw.send(half)
            await asyncio.sleep(0.01)
    assert (await raw.receive())[2]["status"] == "COMPLETED"


async def test_pipelined_requests_are_answered_in_order(client: Client, raw: RawConnection, stage_type: str) -> None:
    """Requests sent before the previous response are answered in the order in which they were sent."""
    tasks = await client.tasks(await client.stage(await client.job(), stage_type), 3)
    await raw.send(claim(stage_type) * 3 + claim("nothing-here") + "GET /liveness HTTP/1.1\r\nHost: manager\r\n\r\n")
    assert [(await raw.receive())[2]["id"] for _ in tasks] == [task["id"] for task in tasks]
    assert (await raw.receive())[0] == 404
    assert (await raw.receive())[0] == 200


async def test_a_client_may_ask_to_close(client: Client, raw: RawConnection, stage_type: str) -> None:
    """The response announces that the connection closes, and it closes."""
    await client.tasks(await client.stage(await client.job(), stage_type))
    await raw.send(claim(stage_type, "Connection: close"))
    status, headers, _ = await raw.receive()
    assert (status, headers["connection"]) == (200, "close")
    assert await raw.is_closed()


async def test_http_1_0_is_supported(raw: RawConnection) -> None:
    """An HTTP/1.0 request is answered, and the connection closes."""
    await raw.send(claim("nothing-here").replace("HTTP/1.1", "HTTP/1.0"))
    assert (await raw.receive())[0] == 404
    assert await raw.is_closed()


@pytest.mark.parametrize("body", ['{"status": "GREAT"}', '{"status": "COMPLETED", "more": 1}', "{", " " * 2000])
async def test_an_invalid_report_is_refused_by_its_route(raw: RawConnection, body: str) -> None:
    """An invalid report gets the refusal of its route, and the connection stays open."""
    await raw.send(report("00000000-0000-7000-8000-000000000000", body))
    status, _, refusal = await raw.receive()
    assert (status, refusal["code"]) == (400, "VALIDATION_ERROR")
    await raw.send(claim("nothing-here"))
    assert (await raw.receive())[0] == 404


async def test_expect_100_continue_is_answered(client: Client, raw: RawConnection, stage_type: str) -> None:
    """The manager sends 100 Continue before the client sends the body."""
    await client.tasks(await client.stage(await client.job(), stage_type))
    task = await client.claimed(stage_type)
    head, _, body = report(task["id"], '{"status": "COMPLETED"}', "Expect: 100-continue").partition("\r\n\r\n")
    await raw.send(f"{head}\r\n\r\n")
    await raw.receive_continue()
    await raw.send(body)
    assert (await raw.receive())[2]["status"] == "COMPLETED"


async def test_a_report_counts_although_its_sender_disconnects(
    client: Client, raw: RawConnection, stage_type: str
) -> None:
    """A report that has arrived is processed even if nobody waits for the response."""
    stage = await client.stage(await client.job(), stage_type)
    await client.tasks(stage)
    task = await client.claimed(stage_type)
    await raw.send(report(task["id"], '{"status": "COMPLETED"}'))
    await raw.aclose()
    async with asyncio.timeout(10):
        while (await client.read(task))["status"] != "COMPLETED":  # noqa: ASYNC110 - the manager does not call us
            await asyncio.sleep(0.01)
