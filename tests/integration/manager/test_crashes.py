"""Whatever is killed in the middle of the work, what the database says stays true."""

import asyncio
from collections.abc import Callable

import asyncpg
import httpx2
import pytest
from reference_manager.embedded import EmbeddedPostgres

from tests.support.invariants import violations
from tests.support.protocol import Client
from tools.manager import ManagerProcess
from tools.wire import Wire

JOBS, TASKS = 6, 400


@pytest.mark.timeout(60)  # three managers and five thousand requests on a small machine
async def test_killed_managers_and_backends_leave_true_figures(
    postgres: EmbeddedPostgres, start_manager: Callable[..., ManagerProcess], database_url: str, stage_type: str
) -> None:
    """Figures equal the rows, no stage hangs or is forgotten, and a manager that comes later does the rest."""
    doomed, other = start_manager(), start_manager()
    async with httpx2.AsyncClient(base_url=other.url, timeout=15) as http:
        client = Client(http)
        for _ in range(JOBS):
            await client.tasks(await client.stage(await client.job(), stage_type), TASKS)

    completed = 0
    progress = asyncio.Condition()

    async def work(url: str) -> None:
        """Claim and complete until nothing is left, or the manager hangs up or says that its database did."""
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
    connection = await asyncpg.connect(database_url, server_settings={"search_path": "jobnik"})
    try:
        assert await violations(connection) == []
        rows = await connection.fetch("SELECT status, count(*) FROM tasks GROUP BY status")
        statuses: dict[str, int] = {row["status"]: row["count"] for row in rows}
    finally:
        await connection.close()
    # What was claimed and never reported is all that is left; each worker held one task at the most.
    assert set(statuses) <= {"COMPLETED", "IN_PROGRESS"}
    assert completed <= statuses["COMPLETED"]
    assert statuses.get("IN_PROGRESS", 0) <= 32
