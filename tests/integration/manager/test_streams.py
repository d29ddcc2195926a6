"""Lists that are longer than a page, without a limit: all of them, piece by piece, however slowly they are taken."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg
import httpx2
import pytest
from reference_manager.embedded import EmbeddedPostgres
from reference_manager.store.pool import Database

from tests.support.protocol import Client, refused
from tools.backlog import add_backlog
from tools.manager import ManagerProcess

LONG = 1_200
"""Tasks: more than two pages."""


async def got(http: httpx2.AsyncClient, path: str) -> Any:  # noqa: ANN401 - any JSON
    """What is answered."""
    return (await http.get(path)).raise_for_status().json()


async def test_a_long_list_is_the_same_by_pages_and_whole(client: Client, stage_type: str) -> None:
    """Without a limit a list goes on behind its first page, and ends where its pages end."""
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


async def test_what_is_inside_an_entity_may_be_long(client: Client, stage_type: str) -> None:
    """Stages with many tasks and jobs with many stages have them all inside, in lists, in pages and read alone."""
    name = stage_type
    job, other = await client.job(name=name), await client.job(name=name)
    stages = [await client.stage(job, stage_type) for _ in range(30)]
    tasks = [await client.tasks(stage, count) for stage, count in zip(stages, (20, 21, LONG, 0), strict=False)]
    http, path = client.http, f"/v1/jobs/{job['id']}/stages"

    plain = await got(http, path)
    assert "tasks" not in plain[0]
    full = [stage | {"tasks": tasks[number] if number < len(tasks) else []} for number, stage in enumerate(plain)]
    assert await got(http, f"{path}?should_return_tasks=true") == full
    assert await got(http, f"/v1/stages?stage_type={stage_type}&should_return_tasks=true") == full
    assert await got(http, f"/v1/stages/{stages[2]['id']}?should_return_tasks=true") == full[2]
    page = await http.get(f"{path}?should_return_tasks=true&limit=3")
    assert page.json() == full[:3]
    assert await got(http, f"{page.links['next']['url']}") == full[3:6]

    jobs = [await got(http, f"/v1/jobs/{entity['id']}") for entity in (job, other)]
    jobs = [jobs[0] | {"stages": plain}, jobs[1] | {"stages": []}]
    assert await got(http, f"/v1/jobs?job_name={name}&should_return_stages=true") == jobs
    assert await got(http, f"/v1/jobs/{job['id']}?should_return_stages=true") == jobs[0]
    refused(await http.get(f"/v1/stages/{job['id']}?should_return_tasks=true"), 404, "STAGE_NOT_FOUND")


async def test_the_head_of_a_list_is_its_headers(client: Client, stage_type: str) -> None:
    """HEAD answers what GET would say of itself, the link too, and the connection goes on."""
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
    """A stage with 60 MB of tasks: more than the buffers between a manager and its client hold."""
    stage_id = await add_backlog(database, "heavy", 3_000)
    async with database.connection() as connection:
        await connection.execute("UPDATE tasks SET data = json_build_object('text', repeat('x', 20000))")
    return stage_id


@asynccontextmanager
async def stalled(url: str) -> AsyncGenerator[tuple[bytes, AsyncIterator[bytes]]]:
    """A client that has taken the first piece of the long list and takes no more of the others until it is asked to."""
    async with httpx2.AsyncClient(base_url=url, timeout=15) as http, http.stream("GET", "/v1/tasks") as response:
        assert response.status_code == 200
        pieces = response.aiter_raw()
        yield await anext(pieces), pieces


async def rest(pieces: AsyncIterator[bytes]) -> bytes:
    """What is still to come."""
    return b"".join([piece async for piece in pieces])


@pytest.mark.timeout(60)  # reads 60 MB, three times
async def test_slow_clients_hold_no_connection(start_manager: Callable[..., ManagerProcess], heavy: UUID) -> None:
    """More slow clients than connections hinder nobody, and each gets what was there when it asked, and no more."""
    manager = start_manager("--database-connections", "2")
    async with AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(stalled(manager.url)) for _ in range(3)]
        async with httpx2.AsyncClient(base_url=manager.url, timeout=15) as http:
            (late,) = await Client(http).tasks({"id": str(heavy)}, 1)
        for first, pieces in slow:
            listed = json.loads(first + await rest(pieces))
            assert len(listed) == 3_000
            assert late["id"] not in {task["id"] for task in listed}


@pytest.mark.usefixtures("heavy")
async def test_nobody_reads_on_for_a_client_that_has_gone(
    database: Database, start_manager: Callable[..., ManagerProcess]
) -> None:
    """A client that hangs up in the middle of a list ends even the statement that is under way for it."""
    manager = start_manager()
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with database.connection() as watcher, database.transaction() as blocker:
        async with stalled(manager.url) as (_, pieces):
            await blocker.execute("LOCK TABLE tasks IN ACCESS EXCLUSIVE MODE")
            reading = asyncio.create_task(rest(pieces))
            while await watcher.fetchval(waiting) == 0:
                pass
            reading.cancel()
        while await watcher.fetchval(waiting) > 0:
            pass
    assert manager.stop() == 0
    assert "lock timeout" not in manager.log


@pytest.mark.usefixtures("heavy")
async def test_a_list_that_breaks_off_is_seen_to(
    postgres: EmbeddedPostgres, database_url: str, start_manager: Callable[..., ManagerProcess]
) -> None:
    """When the database fails in the middle of a list the connection ends before the answer does."""
    manager = start_manager()
    name = database_url.rpartition("/")[2]
    admin = await asyncpg.connect(postgres.url)
    try:
        async with stalled(manager.url) as (_, pieces):
            await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
            with pytest.raises(httpx2.RemoteProtocolError, match="incomplete"):
                await rest(pieces)
        await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        async with stalled(manager.url) as (_, pieces):
            assert (await rest(pieces)).endswith(b"}]")
    finally:
        await admin.close()
