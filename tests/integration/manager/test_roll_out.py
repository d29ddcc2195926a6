"""Two releases in a row serve side by side on one database: no request fails, and nothing is lost."""

import asyncio
from collections import Counter
from collections.abc import Generator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
from reference_manager.store.schema import ROUTINE_SCHEMA

from tests.support import invariants
from tests.support.previous_release import PreviousRelease, run_example
from tests.support.sessions import session
from tools.manager import ManagerProcess
from tools.snapshot import ROOT

pytestmark = pytest.mark.timeout(120)  # starts five managers, and six workers that finish a job each

EXAMPLE_OUTPUT = ["created True, created again False", "COMPLETED 100 %"]
"""What the example of both releases prints, among other lines."""
TYPE = "rolled-out"
PAUSE = timedelta(milliseconds=50)
"""Between two rounds of a client: the managers that start meanwhile need the machine."""
SHARED_FUNCTIONS = """
    SELECT string_agg(pg_get_functiondef(oid), '' ORDER BY proname) FROM pg_proc
    WHERE pronamespace = 'jobnik'::regnamespace
        AND (prorettype = 'trigger'::regtype OR proname IN ('new_id', 'job_key'))
"""
"""The definitions of the functions that all releases use."""
AMBIGUOUS_ROUTINES = """
    SELECT ours.oid::regprocedure::text FROM pg_proc AS ours JOIN pg_proc AS theirs USING (proname, pronargs)
    WHERE ours.pronamespace = $1::regnamespace AND theirs.pronamespace = 'jobnik'::regnamespace
        AND ours.proargtypes <> theirs.proargtypes
"""
"""Routines of this release that a call with untyped parameters may confuse with those of the first one, which are in
the schema that both search."""


class Load:
    """Clients that create jobs, claim and report tasks, and read. A client ends when a request fails."""

    def __init__(self) -> None:
        self._clients: dict[str, asyncio.Task[None]] = {}
        self._stopping: set[str] = set()
        self._rounds = Counter[str]()
        self._changed = asyncio.Condition()
        self.jobs: list[str] = []

    def start(self, url: str) -> None:
        """Start a client of a manager."""
        self._clients[url] = asyncio.create_task(self._run(url))

    async def stop(self, url: str) -> None:
        """Stop the client of a manager after its current round."""
        self._stopping.add(url)
        await self._clients.pop(url)

    async def proceed(self, rounds: int = 5) -> None:
        """Wait until each client has done some more rounds."""
        wanted = {url: self._rounds[url] + rounds for url in self._clients}
        async with self._changed:
            await self._changed.wait_for(
                lambda: (
                    any(client.done() for client in self._clients.values())
                    or all(self._rounds[url] >= count for url, count in wanted.items())
                )
            )
        for client in self._clients.values():
            if client.done():
                client.result()

    async def finish(self, url: str) -> None:
        """Complete the remaining tasks, and check that every job is completed."""
        async with httpx2.AsyncClient(base_url=url, timeout=30) as http:
            while await self._work(http):
                pass
            for job in self.jobs:
                assert (await _send(http, "GET", f"/v1/jobs/{job}"))["status"] == "COMPLETED"

    async def _run(self, url: str) -> None:
        try:
            async with httpx2.AsyncClient(base_url=url, timeout=30) as http:
                while url not in self._stopping:
                    await self._round(http)
                    self._rounds[url] += 1
                    async with self._changed:
                        self._changed.notify_all()
                    await asyncio.sleep(PAUSE.total_seconds())
        finally:
            async with self._changed:
                self._changed.notify_all()

    async def _round(self, http: httpx2.AsyncClient) -> None:
        stage: dict[str, Any] = {"type": TYPE, "data": {}, "tasks": [{"data": {}}] * 4}
        job = await _send(http, "POST", "/v1/jobs", {"name": "job", "data": {}, "stages": [stage]})
        self.jobs.append(job["id"])
        await self._work(http)
        response = await http.patch(f"/v1/stages/{TYPE}/tasks/dequeue")
        assert response.status_code in {200, 404}, response.text
        if response.status_code == 200:
            await _send(http, "PUT", f"/v1/tasks/{response.json()['id']}/status", {"status": "COMPLETED"})
        await _send(http, "POST", f"/v1/workers/w-{http.base_url.port}/heartbeat", {"stageTypes": [TYPE]})
        tree = await _send(http, "GET", f"/v1/jobs/{job['id']}?should_return_stages=true")
        tasks = await _send(http, "GET", f"/v1/stages/{tree['stages'][0]['id']}?should_return_tasks=true")
        assert len(tasks["tasks"]) == 4
        await _send(http, "GET", f"/v1/queues/{TYPE}/depth")

    async def _work(self, http: httpx2.AsyncClient) -> bool:
        """Claim up to three tasks and complete them. Return whether there were any."""
        body = {"workerId": "worker", "limit": 3}
        tasks = (await _send(http, "POST", f"/v1/stages/{TYPE}/tasks/claim", body))["tasks"]
        if tasks:
            results = [{"taskId": task["id"], "leaseId": task["leaseId"], "outcome": "COMPLETED"} for task in tasks]
            settled = await _send(http, "POST", "/v1/tasks/settle", {"workerId": "worker", "results": results})
            assert [result["status"] for result in settled["results"]] == ["COMPLETED"] * len(tasks)
        return bool(tasks)


async def _send(http: httpx2.AsyncClient, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - any JSON
    response = await http.request(method, path, json=body)
    assert response.is_success, f"{method} {http.base_url}{path}: {response.status_code} {response.text}"
    return response.json()


@pytest.fixture
def stack() -> Generator[ExitStack]:
    """Stop the managers of a test at its end."""
    with ExitStack() as opened:
        yield opened


async def test_two_releases_serve_side_by_side(
    empty_url: str, database_url: str, stack: ExitStack, tmp_path: Path
) -> None:
    """The previous release serves before, during and after the migration and its own restart, as this one does."""
    previous = PreviousRelease(tmp_path)
    await previous.create_schema(empty_url)
    load = Load()
    older = await start(stack, previous.manager(empty_url))
    load.start(older.url)
    await load.proceed()

    newer = await start(stack, ManagerProcess("--database-url", empty_url))
    load.start(newer.url)
    await load.proceed()
    for output in await asyncio.gather(previous.run_example(newer.url), run_example(ROOT / "docs/examples", older.url)):
        assert [line for line in output.splitlines() if line in EXAMPLE_OUTPUT] == EXAMPLE_OUTPUT, output

    await add_a_column_to_every_table(empty_url)
    await load.proceed()

    await load.stop(older.url)
    assert older.stop() == 0
    older = await start(stack, previous.manager(empty_url))  # replaces its own routines
    load.start(older.url)
    await load.proceed()
    await load.stop(newer.url)
    assert newer.stop() == 0
    await load.stop(older.url)
    newest = await start(stack, ManagerProcess("--database-url", empty_url))
    await load.finish(newest.url)

    async with session(empty_url) as connection, session(database_url) as fresh:
        assert await invariants.violations(connection) == []
        assert await connection.fetch(AMBIGUOUS_ROUTINES, ROUTINE_SCHEMA) == []
        assert await connection.fetchval(SHARED_FUNCTIONS) == await fresh.fetchval(SHARED_FUNCTIONS)


async def add_a_column_to_every_table(url: str) -> None:
    """Change the tables as a later release might."""
    connection = await asyncpg.connect(url)
    try:
        for table in await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'jobnik'"):
            await connection.execute(f"ALTER TABLE jobnik.{table['tablename']} ADD COLUMN later integer DEFAULT 1")
    finally:
        await connection.close()


async def start(stack: ExitStack, manager: ManagerProcess) -> ManagerProcess:
    """Start a manager while the clients of others continue."""
    return await asyncio.to_thread(stack.enter_context, manager)
