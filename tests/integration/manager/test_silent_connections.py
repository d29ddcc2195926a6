"""A connection to PostgreSQL that goes silent delays only its own requests, and is replaced."""

import asyncio
from collections.abc import Callable, Generator
from contextlib import AsyncExitStack
from datetime import timedelta
from time import monotonic
from typing import Any
from uuid import UUID

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from reference_manager.engine.maintenance.lease_sweeper import LeaseSweeper
from reference_manager.store.connections import answers_within
from reference_manager.store.errors import DatabaseBusyError, DatabaseError, DatabaseUnavailableError
from reference_manager.store.pool import Database

from tests.support.protocol import Client, branch, refused
from tests.support.silent_network import SilentNetwork
from tools.manager import ManagerProcess

SOON = timedelta(seconds=0.5)
RECOVERY_LIMIT = 30.0
"""Seconds within which a manager serves again."""


@pytest.fixture
def network(database_url: str) -> Generator[SilentNetwork]:
    """A network in front of the test's database."""
    with SilentNetwork(database_url) as network:
        yield network


async def claim(http: httpx2.AsyncClient, stage_type: str, **fields: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - any field
    """Claim tasks with leases."""
    response = await http.post(f"/v1/stages/{stage_type}/tasks/claim", json={"workerId": "me"} | fields)
    assert response.status_code == 200, response.text
    return response.json()["tasks"]


async def settle(http: httpx2.AsyncClient, task: dict[str, Any]) -> httpx2.Response:
    """Report a task with a lease as completed."""
    result = {"taskId": task["id"], "leaseId": task["leaseId"], "outcome": "COMPLETED"}
    return await http.post("/v1/tasks/settle", json={"workerId": "me", "results": [result]})


async def eventually(check: Callable[[], Any], limit: float = 60) -> None:
    """Wait until a check returns true."""
    async with asyncio.timeout(limit):
        while not await check():  # noqa: ASYNC110 - another process has no event to wait for
            await asyncio.sleep(0.1)


@pytest.mark.timeout(120)  # waits for deadlines of about 20 s
async def test_a_manager_recovers_from_silent_connections(
    network: SilentNetwork, start_manager: Callable[..., ManagerProcess]
) -> None:
    """A lost answer and a silent network end in 503, others continue, nothing is lost, and the manager recovers."""
    manager = start_manager("--database-url", network.url)
    async with httpx2.AsyncClient(base_url=manager.url, timeout=60) as http:
        client = Client(http)
        job = await client.job(stages=[branch("work", 4)])
        await client.job(stages=[branch("leased", 1)])
        first, second, third, fourth = await claim(http, "work", limit=4)
        assert (await settle(http, first)).status_code == 200

        # The answer to a report is lost, and that of the lease sweeper, which then holds its lock.
        sweeping = network.lose_answer(LeaseSweeper.key().to_bytes(8, signed=True))
        (leased,) = await claim(http, "leased", leaseSeconds=1)
        await sweeping
        reporting = network.lose_answer(UUID(second["id"]).bytes)
        report = asyncio.create_task(settle(http, second))
        await reporting
        assert (await client.read(first))["status"] == "COMPLETED"
        assert await claim(http, "work") == []
        for path in ("/readiness", "/liveness"):
            assert (await http.get(path)).status_code == 200

        # Now the whole network is silent.
        network.silence()
        requests = (http.get("/readiness"), http.get("/v1/jobs"), settle(http, fourth), http.get("/metrics"))
        answers = asyncio.gather(report, *requests, http.patch("/v1/stages/work/tasks/dequeue"))
        assert (await http.get("/liveness")).status_code == 200
        for answer in await answers:
            refused(answer, 503, "DATABASE_RELATED_ERROR")
            assert answer.headers["Retry-After"] == "1"

        network.mend()
        mended = monotonic()

        async def is_ready() -> bool:
            return (await http.get("/readiness")).status_code == 200

        await eventually(is_ready)
        for task in (second, third, fourth):
            assert (await settle(http, task)).json()["results"][0]["status"] == "COMPLETED"
        (again,) = await claim(http, "leased", waitSeconds=30)
        assert again["id"] == leased["id"]
        assert monotonic() - mended < RECOVERY_LIMIT
        assert (await client.read(job))["status"] == "COMPLETED"

        async def notifications_arrive() -> bool:
            families = text_string_to_metric_families((await http.get("/metrics")).text)
            return any(f.name == "jobnik_manager_notifications_arrive" and f.samples[0].value for f in families)

        await eventually(notifications_arrive)
        assert "Traceback" not in manager.log


async def read(database: Database) -> int:
    """Run a statement."""
    async with database.connection() as connection:
        return await connection.fetchval("SELECT 1")


@pytest.mark.parametrize("moment", ["SELECT 1", "COMMIT", "ROLLBACK", "BEGIN"])
async def test_a_lost_answer_ends_the_statement(network: SilentNetwork, moment: str) -> None:
    """Wherever in a transaction the answer is lost, the caller gets one error, and the connection is replaced."""
    async with Database.connect(network.url, connections=2, acquire_timeout=timedelta(seconds=5)) as database:

        async def transact() -> None:
            async with database.transaction() as connection:
                await connection.execute("SELECT 1")
                if moment == "ROLLBACK":
                    raise LookupError

        network.lose_answer(moment.encode())
        with answers_within(SOON), pytest.raises(DatabaseUnavailableError, match="did not answer within"):
            await transact()
        assert await read(database) == 1


async def test_a_cancelled_request_does_not_wait_for_a_silent_connection(network: SilentNetwork) -> None:
    """The request ends at once, and its connection is replaced."""
    async with Database.connect(network.url, connections=2, acquire_timeout=timedelta(seconds=5)) as database:
        lost = network.lose_answer(b"SELECT 1")
        request = asyncio.create_task(read(database))
        await lost
        request.cancel()
        async with asyncio.timeout(4):
            with pytest.raises(asyncio.CancelledError):
                await request
            assert await read(database) == 1


async def test_connecting_and_closing_do_not_wait_for_a_silent_network(network: SilentNetwork) -> None:
    """A request that needs a new connection is refused in time, and the pools close in time."""
    async with AsyncExitStack() as stack:
        opened = Database.connect(network.url, connections=2, acquire_timeout=SOON)
        database = await stack.enter_async_context(opened)
        network.silence()
        with answers_within(SOON), pytest.raises(DatabaseUnavailableError, match="did not answer within"):
            await read(database)
        with pytest.raises(DatabaseBusyError):
            await read(database)
        async with asyncio.timeout(10):
            await stack.aclose()


async def test_a_silent_host_does_not_keep_the_others_from_being_used(
    network: SilentNetwork, database_url: str
) -> None:
    """If a URL lists several hosts, each gets its share of the time, and the one that answers is tried first later."""
    hosts = f"{network.address},{database_url.rpartition('@')[2]}"
    both = f"{network.url.rpartition('@')[0]}@{hosts}"
    async with Database.connect(both, connections=2, acquire_timeout=timedelta(seconds=5)) as database:
        assert await read(database) == 1
        network.silence()
        with answers_within(SOON), pytest.raises(DatabaseError):
            await read(database)
        assert await read(database) == 1


async def test_only_an_extended_transaction_may_run_for_minutes(database: Database) -> None:
    """A statement may run for 15 s, and one of an extended transaction for 5 minutes; then PostgreSQL cancels it."""
    async with database.transaction(extended=True) as connection:
        assert await connection.fetchval("SHOW statement_timeout") == "5min"
    async with database.transaction() as connection:
        assert await connection.fetchval("SHOW statement_timeout") == "15s"
