"""After crashes in the middle of the work, the database is still consistent."""

import asyncio
from collections.abc import Callable

import asyncpg
import httpx2
import pytest
from reference_manager.embedded import EmbeddedPostgres

from tests.support.invariants import violations
from tests.support.protocol import Client
from tests.support.sessions import session
from tools.manager import ManagerProcess
from tools.wire import Wire

JOBS, TASKS = 6, 400


@pytest.mark.timeout(180)  # three managers and five thousand requests on a small machine
async def test_the_database_is_consistent_after_managers_and_backends_are_killed(
    postgres: EmbeddedPostgres, start_manager: Callable[..., ManagerProcess], database_url: str, stage_type: str
) -> None:
    """The counts equal the rows, no stage is stuck or unqueued, and a later manager finishes the work."""
    doomed, other = start_manager(), start_manager()
    async with httpx2.AsyncClient(base_url=other.url, timeout=15) as http:
        client = Client(http)
        for _ in range(JOBS):
            await client.tasks(await client.stage(await client.job(), stage_type), TASKS)

    completed = 0
    progress = asyncio.Condition()

    async def work(url: str) -> None:
        """Claim and complete tasks until none is left, or until the manager or its database fails."""
        nonlocal completed
        wire = await Wire.open(url)
        try:
            while task := await wire.claim(stage_type):
                await wire.complete(task)
                async with progress:
                    completed += 1
                    progress.notify_all()
        except (RuntimeError, ConnectionError):
            pass
        finally:
            wire.close()

    workers = [asyncio.create_task(work(manager.url)) for manager in (doomed, other) for _ in range(16)]
    async with progress:
        await progress.wait_for(lambda: completed > JOBS * TASKS // 6)
    doomed.process.kill()
    async with progress:
        await progress.wait_for(lambda: completed > JOBS * TASKS // 3)
    admin = await asyncpg.connect(postgres.url)
    database = database_url.rpartition("/")[2]
    await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", database)
    await admin.close()
    await asyncio.gather(*workers)

    late = start_manager()
    await asyncio.gather(*(work(late.url) for _ in range(16)))
    async with session(database_url) as connection:
        assert await violations(connection) == []
        rows = await connection.fetch("SELECT status, count(*) FROM tasks GROUP BY status")
        statuses: dict[str, int] = {row["status"]: row["count"] for row in rows}
    # Only tasks that were claimed and never reported are left. Each worker held at most one.
    assert set(statuses) <= {"COMPLETED", "IN_PROGRESS"}
    assert completed <= statuses["COMPLETED"]
    assert statuses.get("IN_PROGRESS", 0) <= 32
