"""Lists without a limit are streamed page by page, at the speed of the client."""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import httpx2
import psutil
import pytest
from reference_manager.embedded import EmbeddedPostgres
from reference_manager.store.pool import Database

from tests.support.protocol import Client, refused
from tests.support.sessions import lock_waiters, wait_for_lock_waiters
from tools.backlog import add_backlog
from tools.manager import ManagerProcess

LONG = 1_200
"""The number of tasks, more than two pages."""


async def get_json(http: httpx2.AsyncClient, path: str) -> Any:  # noqa: ANN401 - any JSON
    """Return the JSON of a successful response."""
    return (await http.get(path)).raise_for_status().json()


async def test_a_long_list_equals_its_pages(client: Client, stage_type: str) -> None:
    """A list without a limit contains the same entries as its pages together."""
    job = await client.job()
    stages = [await client.stage(job, stage_type) for _ in range(3)]
    added = [await client.tasks(stage, LONG // 2) for stage in stages[:2]]
    path = f"/v1/tasks?stage_type={stage_type}"
    whole = await client.http.get(path)
    assert whole.headers["Transfer-Encoding"] == "chunked"
    assert whole.headers["Content-Type"] == "application/json"
    assert whole.json() == added[0] + added[1]

    link, read = f"{path}&limit=500", []
    while link:
        page = await client.http.get(link)
        read += page.json()
        link = page.links.get("next", {}).get("url")
    assert read == whole.json()


async def test_nested_lists_may_be_long(client: Client, stage_type: str) -> None:
    """Stages contain all their tasks and jobs all their stages, in lists, in pages and as single entities."""
    name = stage_type
    job, other = await client.job(name=name), await client.job(name=name)
    stages = [await client.stage(job, stage_type) for _ in range(30)]
    tasks = [await client.tasks(stage, count) for stage, count in zip(stages, (20, 21, LONG, 0), strict=False)]
    http, path = client.http, f"/v1/jobs/{job['id']}/stages"

    plain = await get_json(http, path)
    assert "tasks" not in plain[0]
    full = [stage | {"tasks": tasks[number] if number < len(tasks) else []} for number, stage in enumerate(plain)]
    assert await get_json(http, f"{path}?should_return_tasks=true") == full
    assert await get_json(http, f"/v1/stages?stage_type={stage_type}&should_return_tasks=true") == full
    assert await get_json(http, f"/v1/stages/{stages[2]['id']}?should_return_tasks=true") == full[2]
    page = await http.get(f"{path}?should_return_tasks=true&limit=3")
    assert page.json() == full[:3]
    assert await get_json(http, f"{page.links['next']['url']}") == full[3:6]

    jobs = [await get_json(http, f"/v1/jobs/{entity['id']}") for entity in (job, other)]
    jobs = [jobs[0] | {"stages": plain}, jobs[1] | {"stages": []}]
    assert await get_json(http, f"/v1/jobs?job_name={name}&should_return_stages=true") == jobs
    assert await get_json(http, f"/v1/jobs/{job['id']}?should_return_stages=true") == jobs[0]
    refused(await http.get(f"/v1/stages/{job['id']}?should_return_tasks=true"), 404, "STAGE_NOT_FOUND")


async def test_head_returns_the_headers_of_a_list(client: Client, stage_type: str) -> None:
    """HEAD returns the headers of GET, including the link, and the connection stays open."""
    stage = await client.stage(await client.job(), stage_type)
    await client.tasks(stage, LONG)
    for query in ("", "?limit=2", "?limit=500"):
        path = f"/v1/stages/{stage['id']}/tasks{query}"
        head, answer = await client.http.head(path), await client.http.get(path)
        assert (head.status_code, head.content) == (200, b"")
        for name in ("Link", "Content-Type", "Content-Length"):
            assert head.headers.get(name) == answer.headers.get(name)


@pytest.fixture
async def heavy(database: Database) -> UUID:
    """A stage with 60 MB of tasks, more than the buffers between a manager and its client hold."""
    stage_id = await add_backlog(database, "heavy", 3_000)
    async with database.connection() as connection:
        await connection.execute("UPDATE tasks SET data = json_build_object('text', repeat('x', 20000))")
    return stage_id


@asynccontextmanager
async def stalled_client(url: str) -> AsyncGenerator[tuple[bytes, AsyncIterator[bytes]]]:
    """A client that has read the first piece of the long list and reads the rest only on request."""
    async with httpx2.AsyncClient(base_url=url, timeout=15) as http, http.stream("GET", "/v1/tasks") as response:
        assert response.status_code == 200
        pieces = response.aiter_raw()
        yield await anext(pieces), pieces


async def read_rest(pieces: AsyncIterator[bytes]) -> bytes:
    """Read the remaining pieces."""
    return b"".join([piece async for piece in pieces])


@pytest.mark.timeout(180)  # reads 60 MB, three times
async def test_slow_clients_hold_no_connection(start_manager: Callable[..., ManagerProcess], heavy: UUID) -> None:
    """More slow clients than connections block nobody, and each gets the entries that existed at its request."""
    manager = start_manager("--database-connections", "2")
    async with AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(stalled_client(manager.url)) for _ in range(3)]
        async with httpx2.AsyncClient(base_url=manager.url, timeout=15) as http:
            (late,) = await Client(http).tasks({"id": str(heavy)}, 1)
        for first, pieces in slow:
            listed = json.loads(first + await read_rest(pieces))
            assert len(listed) == 3_000
            assert late["id"] not in {task["id"] for task in listed}


@pytest.mark.usefixtures("heavy")
async def test_a_disconnected_client_ends_its_statement(
    database: Database, start_manager: Callable[..., ManagerProcess]
) -> None:
    """If a client disconnects in the middle of a list, the statement under way for it is cancelled."""
    manager = start_manager()
    async with database.connection() as watcher, database.transaction() as blocker:
        async with stalled_client(manager.url) as (_, pieces):
            await blocker.execute("LOCK TABLE tasks IN ACCESS EXCLUSIVE MODE")
            reading = asyncio.create_task(read_rest(pieces))
            await wait_for_lock_waiters(watcher)
            reading.cancel()
        while await lock_waiters(watcher) > 0:
            pass
    assert manager.stop() == 0
    assert "database busy" not in manager.log


@pytest.mark.usefixtures("heavy")
async def test_an_interrupted_list_is_an_incomplete_response(
    postgres: EmbeddedPostgres, database_url: str, start_manager: Callable[..., ManagerProcess]
) -> None:
    """If the database fails in the middle of a list, the connection closes before the response is complete."""
    manager = start_manager()
    name = database_url.rpartition("/")[2]
    admin = await asyncpg.connect(postgres.url)
    try:
        async with stalled_client(manager.url) as (_, pieces):
            await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
            with pytest.raises(httpx2.RemoteProtocolError, match="incomplete"):
                await read_rest(pieces)
        await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        async with stalled_client(manager.url) as (_, pieces):
            assert (await read_rest(pieces)).endswith(b"}]")
    finally:
        await admin.close()


@pytest.mark.usefixtures("heavy")
@pytest.mark.timeout(180)  # starts 40 lists of 60 MB
async def test_clients_that_do_not_read_take_little_memory(start_manager: Callable[..., ManagerProcess]) -> None:
    """Each client that reads nothing of a long list takes little more than one page, and is finally disconnected."""
    manager = start_manager("--client-timeout", "PT2S")
    process, address = psutil.Process(manager.process.pid), urlsplit(manager.url)
    at_start = most = process.memory_info().rss
    with ExitStack() as stack:
        for _ in range(40):
            client = stack.enter_context(socket.create_connection((address.hostname, address.port)))
            client.sendall(b"GET /v1/tasks HTTP/1.1\r\nHost: manager\r\n\r\n")
        while manager.log.count("client disconnected") < 40:
            most = max(most, process.memory_info().rss)
            await asyncio.sleep(0.05)
    assert most - at_start < 200_000_000
    async with httpx2.AsyncClient(base_url=manager.url, timeout=15) as http:
        assert (await http.get("/readiness")).status_code == 200


@pytest.mark.usefixtures("heavy")
async def test_a_manager_that_stops_completes_the_lists_that_are_read(
    start_manager: Callable[..., ManagerProcess],
) -> None:
    """After SIGTERM, idle connections close at once, and a list under way is sent to its end."""
    manager = start_manager("--shutdown-timeout", "PT60S")
    address = urlsplit(manager.url)
    idle, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(b"GET /liveness HTTP/1.1\r\nHost: manager\r\n\r\n")
    await idle.readuntil(b"ALIVE")
    async with stalled_client(manager.url) as (first, pieces):
        manager.process.terminate()
        await idle.read()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(address.hostname, address.port)
        assert len(json.loads(first + await read_rest(pieces))) == 3_000
    writer.close()
    assert manager.stop() == 0


@pytest.mark.usefixtures("heavy")
async def test_a_manager_that_stops_ends_the_lists_that_are_not_read(
    start_manager: Callable[..., ManagerProcess],
) -> None:
    """At the deadline of the shutdown, a list that its client does not read ends incomplete, and the manager exits."""
    manager = start_manager("--shutdown-timeout", "PT0.5S")
    async with stalled_client(manager.url) as (_, pieces):
        assert manager.stop() == 0
        with pytest.raises(httpx2.HTTPError):
            await read_rest(pieces)
    assert "manager has stopped" in manager.log
    assert '"level": "error"' not in manager.log
