"""Large bodies are served like small ones, by a process of their own, so that no other request waits for them."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator, Callable
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from reference_manager.api.common.bodies import HUGE, LARGE, LARGE_AT_ONCE
from reference_manager.api.common.parser_client import PARSER

from tests.integration.manager.test_overload import BODIES, OPERATIONS
from tests.support.processes import command_line, descendants, wait_until_gone
from tests.support.protocol import Client, refused
from tools.manager import ManagerProcess

Start = Callable[..., ManagerProcess]
JSON = {"Content-Type": "application/json"}
OTHERS: tuple[Any, ...] = (None, [1], [{}], {"userMetadata": {}}, {"status": 1, "more": 1, "traceparent": 1})
"""Bodies that are invalid for most operations."""


@pytest.fixture
async def manager(start_manager: Start) -> ManagerProcess:
    """A manager that accepts bodies of 2 MiB."""
    return start_manager("--body-limit", "2MiB")


@pytest.fixture
async def own(manager: ManagerProcess) -> AsyncGenerator[httpx2.AsyncClient]:
    """A client of this manager, for tests that interfere with its processes."""
    async with httpx2.AsyncClient(base_url=manager.url, timeout=30) as client:
        yield client


def job(size: int) -> bytes:
    """Return the body of a job, with this many bytes."""
    return b'{"name": "job", "data": {}}'.ljust(size)


async def create(http: httpx2.AsyncClient, size: int) -> httpx2.Response:
    """Create a job with a body of this many bytes."""
    return await http.post("/v1/jobs", content=job(size), headers=JSON)


def parsers(manager: ManagerProcess) -> list[int]:
    """Return the processes that parse large bodies for this manager."""
    return [pid for pid in descendants(manager.process.pid) if PARSER in command_line(pid)]


async def test_a_large_body_is_served_like_a_small_one(client: Client, stage_type: str) -> None:
    """A job with thousands of tasks in its body is created, with exactly these tasks."""
    tasks = [{"data": {"number": number, "text": "x" * 20}, "maxAttempts": 1 + number % 3} for number in range(3_000)]
    body: dict[str, Any] = {"name": "job", "data": {}, "stages": [{"type": stage_type, "data": {}, "tasks": tasks}]}
    assert len(json.dumps(body)) > LARGE
    response = await client.http.post("/v1/jobs", json=body)
    assert response.status_code == 201
    stage = response.json()["stages"][0]
    added = await client.http.post(f"/v1/stages/{stage['id']}/tasks", json=tasks)
    assert added.status_code == 201
    listed = (await client.http.get(f"/v1/stages/{stage['id']}/tasks")).json()
    assert [{"data": task["data"], "maxAttempts": task["maxAttempts"]} for task in listed] == tasks * 2
    metadata = {"text": "x" * LARGE}
    assert (await client.http.patch(f"/v1/tasks/{listed[0]['id']}/user-metadata", json=metadata)).status_code == 200
    assert (await client.http.get(f"/v1/tasks/{listed[0]['id']}")).json()["userMetadata"] == metadata


@pytest.mark.parametrize(
    "wrong",
    [
        '{"name": "job", "data": {}, "unknown": "%s"}',
        '{"name": "job", "data": {}, "stages": [{"type": "%s", "data": {}}]}',
        '{"name": "job", "data": {"a": 1e999, "b": "%s"}}',
        '["%s"]',
        '"%s"',
    ],
)
async def test_an_invalid_large_body_is_refused_like_a_small_one(client: Client, wrong: str) -> None:
    """The refusal is the same, whatever the size of the body."""
    headers = {"Content-Type": "application/json"}
    large = await client.http.post("/v1/jobs", content=wrong % ("x" * LARGE), headers=headers)
    small = await client.http.post("/v1/jobs", content=wrong % ("x" * 100), headers=headers)
    refused(large, 400, "VALIDATION_ERROR")
    assert large.json() == small.json()


async def test_a_large_body_that_is_not_json_is_refused(client: Client) -> None:
    """The refusal says why."""
    headers = {"Content-Type": "application/json"}
    response = await client.http.post("/v1/jobs", content='{"name": "' + "x" * LARGE, headers=headers)
    refused(response, 400, "VALIDATION_ERROR")
    assert response.json()["message"].startswith("body: not JSON, EOF while parsing a string")


@pytest.mark.parametrize("part_a_only", [False, True])
async def test_every_operation_treats_large_bodies_like_small_ones(start_manager: Start, part_a_only: bool) -> None:  # noqa: FBT001 - a parameter
    """The response is the same, whatever the size of the body, and whether it is valid or not."""
    manager = start_manager(*(["--part-a-only"] if part_a_only else []))
    unknown = dict.fromkeys(("jobId", "stageId", "taskId", "tokenId"), str(uuid4()))
    async with httpx2.AsyncClient(base_url=manager.url, timeout=30) as http:
        for name, method, path in OPERATIONS:
            if name not in BODIES or name in {"create_job", "create_token"}:  # a second one has another answer
                continue
            body = BODIES[name] | {"waitSeconds": 0} if name == "claim_tasks" else BODIES[name]
            url = path.format(**unknown, stageType="x", workerId="me")
            for content in (body, *OTHERS):
                small = json.dumps(content).encode()
                first, second = [
                    await http.request(method, url, content=small.ljust(size), headers=JSON)
                    for size in (len(small), LARGE + 1)
                ]
                assert (second.status_code, second.content) == (first.status_code, first.content), (name, content)


async def test_other_requests_are_served_while_a_large_body_is_parsed(
    own: httpx2.AsyncClient, manager: ManagerProcess
) -> None:
    """Neither small bodies nor large ones wait for a huge one, and small ones do not wait for a large one."""
    assert (await create(own, LARGE + 1)).status_code == 201
    (of_large,) = parsers(manager)
    assert (await create(own, HUGE + 1)).status_code == 201
    (of_huge,) = set(parsers(manager)) - {of_large}
    os.kill(of_huge, signal.SIGSTOP)
    huge = asyncio.create_task(create(own, HUGE + 1))
    assert (await create(own, HUGE)).status_code == 201
    os.kill(of_large, signal.SIGSTOP)
    large = asyncio.create_task(create(own, LARGE + 1))
    for _ in range(20):
        assert (await own.get("/liveness")).status_code == 200
        assert (await create(own, LARGE)).status_code == 201
    assert not huge.done()
    assert not large.done()
    for pid in (of_huge, of_large):
        os.kill(pid, signal.SIGCONT)
    assert [(await huge).status_code, (await large).status_code] == [201, 201]


async def test_a_large_body_is_refused_if_its_process_is_killed(
    own: httpx2.AsyncClient, manager: ManagerProcess
) -> None:
    """As the system does if there is not enough memory. The next large body is parsed by a new process."""
    await create(own, LARGE + 1)
    (parser,) = parsers(manager)
    os.kill(parser, signal.SIGSTOP)
    answer = asyncio.create_task(create(own, LARGE + 1))
    for _ in range(20):
        await own.get("/liveness")
    os.kill(parser, signal.SIGKILL)
    refused(await answer, 503, "MANAGER_BUSY")
    assert (await answer).headers["Retry-After"] == "1"
    assert (await create(own, LARGE + 1)).status_code == 201
    (parser,) = parsers(manager)
    os.kill(parser, signal.SIGKILL)
    await wait_until_gone([parser])
    assert (await create(own, LARGE + 1)).status_code == 201


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_the_process_ends_with_its_manager(
    own: httpx2.AsyncClient, manager: ManagerProcess, number: signal.Signals
) -> None:
    """A manager that stops ends a process that hangs; a process that parses notices that its manager was killed."""
    await create(own, LARGE + 1)
    (parser,) = parsers(manager)
    if number is signal.SIGTERM:
        os.kill(parser, signal.SIGSTOP)
    manager.process.send_signal(number)
    await asyncio.to_thread(manager.process.wait, 15)
    await wait_until_gone([parser])


async def test_a_stop_refuses_bodies_that_wait_for_the_process(start_manager: Start) -> None:
    """At the deadline of the shutdown, bodies that wait for the process, or for their turn, are answered 503."""
    manager = start_manager("--shutdown-timeout", "PT0.5S", "--body-limit", "2MiB")
    async with httpx2.AsyncClient(base_url=manager.url, timeout=30) as http:
        assert (await create(http, LARGE + 1)).status_code == 201
        (parser,) = parsers(manager)
        os.kill(parser, signal.SIGSTOP)
        async with asyncio.TaskGroup() as group:
            answers = [group.create_task(create(http, LARGE + number)) for number in range(1, LARGE_AT_ONCE + 4)]
            for _ in range(20):
                await http.get("/liveness")
            assert not any(answer.done() for answer in answers)
            manager.process.send_signal(signal.SIGTERM)
    for answer in answers:
        refused(answer.result(), 503, "MANAGER_BUSY")
    assert await asyncio.to_thread(manager.process.wait, 15) == 0
    await wait_until_gone([parser])
    events = [json.loads(line) for line in manager.log.splitlines()]
    assert [event["event"] for event in events if event["level"] != "info"] == []


async def test_a_large_response_is_complete(client: Client, stage_type: str) -> None:
    """A response that is sent in pieces is that of the same request in several parts."""
    text = "é" * 300_000
    body: dict[str, Any] = {"name": "job", "data": {"text": text}, "userMetadata": {"text": text[:1000]}}
    created = await client.http.post("/v1/jobs", content=json.dumps(body, ensure_ascii=False).encode(), headers=JSON)
    assert created.json()["data"] == body["data"]
    stage = await client.stage(created.json(), stage_type)
    tasks = [{"data": {"number": number}} for number in range(4_000)]
    added = await client.http.post(f"/v1/stages/{stage['id']}/tasks", json=tasks)
    assert len(added.content) > HUGE
    assert [{"data": task["data"]} for task in added.json()] == tasks
    assert (await client.http.get(f"/v1/stages/{stage['id']}/tasks")).json() == added.json()
