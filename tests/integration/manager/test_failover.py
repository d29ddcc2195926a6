"""When a standby becomes the primary, a manager follows it, and nothing that was confirmed is lost."""

import asyncio
import os
import signal
from pathlib import Path

import asyncpg
import httpx2
import pytest
from reference_manager.embedded import EmbeddedPostgres
from reference_manager.embedded.postmaster import read_pid_file

from tests.support.protocol import Client, branch, refused
from tests.support.standby import standby
from tools.manager import ManagerProcess
from tools.ports import free_port

WORKERS = 4
TASKS = 2000


async def execute(url: str, *statements: str) -> None:
    """Run statements on a server."""
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@pytest.mark.timeout(120)  # starts two servers
async def test_a_manager_follows_a_failover(open_folder: Path) -> None:
    """Under load, the primary is killed and its synchronous standby promoted: all confirmed reports are there."""
    settings = {"synchronous_commit": "remote_apply"}
    primary = EmbeddedPostgres(open_folder / "primary", settings=settings)
    with primary, standby(primary, open_folder, free_port()) as standby_url:
        hosts = ",".join(url.rpartition("@")[2].partition("/")[0] for url in (standby_url, primary.url))
        account, _, address = primary.url.rpartition("@")
        both = f"{account}@{hosts}/{address.partition('/')[2]}"

        with pytest.raises(RuntimeError, match="the server is read-only, such as a standby") as caught:
            ManagerProcess("--database-url", standby_url).__enter__()
        assert "Traceback" not in str(caught.value)

        with ManagerProcess("--database-url", both) as manager:
            await execute(primary.url, "ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
            async with httpx2.AsyncClient(base_url=manager.url, timeout=60) as http:
                client = Client(http)
                job = await client.job(stages=[branch("work", TASKS)])
                confirmed: set[str] = set()
                many = asyncio.Event()
                failed = asyncio.Event()

                async def work() -> None:
                    while not failed.is_set():
                        response = await http.patch("/v1/stages/work/tasks/dequeue")
                        if response.is_success:
                            task = response.json()
                            path = f"/v1/tasks/{task['id']}/status"
                            response = await http.put(path, json={"status": "COMPLETED"})
                            if response.is_success:
                                confirmed.add(task["id"])
                        if not response.is_success:
                            refused(response, 503, "DATABASE_RELATED_ERROR")
                            assert response.headers["Retry-After"] == "1"
                            failed.set()
                        if len(confirmed) >= TASKS // 10:
                            many.set()

                workers = [asyncio.create_task(work()) for _ in range(WORKERS)]
                await many.wait()
                assert (await http.get("/readiness")).status_code == 200
                found = read_pid_file(open_folder / "primary" / "postgres")
                assert found
                os.kill(found.pid, signal.SIGQUIT)
                await asyncio.gather(*workers)
                refused(await http.get("/readiness"), 503, "DATABASE_RELATED_ERROR")
                await execute(standby_url, "SELECT pg_promote()")
                async with asyncio.timeout(30):
                    while (await http.get("/readiness")).status_code != 200:  # noqa: ASYNC110 - a probe polls
                        await asyncio.sleep(0.1)
                for task in confirmed:
                    assert (await http.get(f"/v1/tasks/{task}")).json()["status"] == "COMPLETED"
                assert (await client.read(job))["status"] == "IN_PROGRESS"
                await client.settle(await client.claimed("work"))
