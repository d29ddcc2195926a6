"""Many clients on several managers: nothing happens twice, nothing is left over, and all counts are correct."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import httpx2
import pytest

from tests.support.protocol import Client, refused
from tools.manager import ManagerProcess
from tools.wire import Wire

Start = Callable[..., ManagerProcess]


def open_client(url: str, connections: int = 100) -> httpx2.AsyncClient:
    """Return a client with this many connections."""
    limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
    return httpx2.AsyncClient(base_url=url, limits=limits, timeout=60)


@pytest.mark.timeout(90)  # twenty thousand requests on a small machine
async def test_parallel_clients_claim_every_task_once(two_urls: Sequence[str], stage_type: str) -> None:
    """64 clients on two managers claim and complete 10,000 tasks: none twice, none left, every count exact."""
    async with open_client(two_urls[0]) as http:
        client = Client(http)
        job = await client.job()
        stage = await client.stage(job, stage_type)
        for _ in range(10):
            await client.tasks(stage, 1000)
        claimed: Counter[bytes] = Counter()

        async def work(wire: Wire) -> None:
            while task := await wire.claim(stage_type):
                claimed[task] += 1
                await wire.complete(task)
            wire.close()

        wires = [await Wire.open(two_urls[number % 2]) for number in range(64)]
        await asyncio.gather(*(work(wire) for wire in wires))
        assert (len(claimed), claimed.total()) == (10_000, 10_000)
        now = await client.read(job)
        (stage,) = now["stages"]
        assert (now["status"], stage["status"]) == ("COMPLETED", "COMPLETED")
        assert stage["summary"] == dict.fromkeys(stage["summary"], 0) | {"completed": 10_000, "total": 10_000}


async def test_stages_added_concurrently_get_distinct_orders(client: Client, stage_type: str) -> None:
    """50 parallel requests produce the orders 1 to 50, and only the first stage is open."""
    job = await client.job()
    stages = await asyncio.gather(*(client.stage(job, stage_type) for _ in range(50)))
    assert sorted(stage["order"] for stage in stages) == list(range(1, 51))
    assert Counter(stage["status"] for stage in stages) == {"PENDING": 1, "CREATED": 49}


async def test_the_last_two_tasks_can_end_at_the_same_moment(two_urls: Sequence[str], stage_type: str) -> None:
    """Whichever of two managers settles the last task also completes the stage, every time."""
    async with open_client(two_urls[0]) as one, open_client(two_urls[1]) as two:
        clients = [Client(one), Client(two)]
        for _ in range(40):
            job = await clients[0].job()
            await clients[0].tasks(await clients[0].stage(job, stage_type), 2)
            tasks = [await client.claimed(stage_type) for client in clients]
            await asyncio.gather(*(client.settle(task) for client, task in zip(clients, tasks, strict=True)))
            assert await clients[1].status(job) == "COMPLETED"


async def test_a_task_is_settled_once(two_urls: Sequence[str], stage_type: str) -> None:
    """Of many concurrent reports of a task, one is accepted and the others are refused as too late."""
    async with open_client(two_urls[0]) as one, open_client(two_urls[1]) as two:
        client = Client(one)
        stage = await client.stage(await client.job(), stage_type)
        await client.tasks(stage, 20)
        for _ in range(20):
            path = f"/v1/tasks/{(await client.claimed(stage_type))['id']}/status"
            outcomes = [(http, status) for http in (one, two) for status in ("COMPLETED", "FAILED")] * 3
            answers = await asyncio.gather(*(http.put(path, json={"status": status}) for http, status in outcomes))
            accepted = [answer for answer in answers if answer.status_code == 200]
            assert len(accepted) == 1
            for answer in answers:
                if answer.status_code == 409:
                    refused(answer, 409, "TASK_STATUS_UPDATE_FAILED")
                elif answer.status_code != 200:
                    refused(answer, 400, "ILLEGAL_TASK_STATUS_TRANSITION")
            if accepted[0].json()["status"] == "RETRIED":
                await client.settle(await client.claimed(stage_type))
        assert await client.status(stage) == "COMPLETED"


async def test_tasks_added_to_a_completing_stage_are_processed_or_refused(client: Client, stage_type: str) -> None:
    """Tasks added while the last task of a stage ends are either processed or refused, and never lost."""
    for _ in range(30):
        job = await client.job()
        stage = await client.stage(job, stage_type)
        await client.tasks(stage, 1)
        last = await client.claimed(stage_type)
        path = f"/v1/stages/{stage['id']}/tasks"
        _, added = await asyncio.gather(client.settle(last), client.http.post(path, json=[{"data": {}}]))
        if added.status_code == 201:
            assert await client.status(stage) == "IN_PROGRESS"
            await client.settle(await client.claimed(stage_type))
        else:
            refused(added, 400, "STAGE_IN_FINITE_STATE")
        assert await client.status(job) == "COMPLETED"


@pytest.mark.timeout(180)  # two thousand requests to three managers on a small machine
async def test_many_small_jobs_on_several_managers_are_completed_exactly_once(
    start_manager: Start, stage_type: str
) -> None:
    """Claims and reports of one-task jobs on three managers cause no deadlock and leave no task."""
    managers = [start_manager() for _ in range(3)]
    async with AsyncExitStack() as stack:
        clients = [Client(await stack.enter_async_context(open_client(manager.url, 12))) for manager in managers]

        async def create(client: Client) -> list[dict[str, Any]]:
            jobs = [await client.job() for _ in range(10)]
            for job in jobs:
                await client.tasks(await client.stage(job, stage_type), 1)
            return jobs

        async def work(client: Client) -> int:
            count = 0
            while task := await client.claim(stage_type):
                await client.settle(task)
                count += 1
            return count

        created = await asyncio.gather(*(create(clients[number % 3]) for number in range(30)))
        assert sum(await asyncio.gather(*(work(clients[number % 3]) for number in range(30)))) == 300
        for jobs in created:
            assert {await clients[0].status(job) for job in jobs} == {"COMPLETED"}


async def test_an_abort_during_claims_and_reports_leaves_no_unfinished_task(client: Client, stage_type: str) -> None:
    """Whatever the workers were doing, every task of the job has ended and the summary matches the rows."""
    for _ in range(5):
        job = await client.job()
        stage = await client.stage(job, stage_type)
        await client.tasks(stage, 60)
        done = 0

        async def work(enough: asyncio.Event) -> None:
            nonlocal done
            while task := await client.claim(stage_type):
                answer = await client.http.put(f"/v1/tasks/{task['id']}/status", json={"status": "COMPLETED"})
                assert answer.status_code in (200, 400, 409), answer.text
                done += 1
                if done >= 15:
                    enough.set()

        enough = asyncio.Event()
        workers = [asyncio.create_task(work(enough)) for _ in range(8)]
        await enough.wait()
        await client.move(job, "ABORTED")
        await asyncio.gather(*workers)
        now = await client.read(stage)
        counts = Counter(task["status"] for task in now["tasks"])
        assert set(counts) <= {"COMPLETED", "ABORTED"}
        assert (now["summary"]["completed"], now["summary"]["aborted"]) == (counts["COMPLETED"], counts["ABORTED"])
        assert now["summary"]["total"] == 60


@pytest.mark.timeout(180)  # six hundred connections on a small machine
async def test_six_hundred_connections_are_served(start_manager: Start, stage_type: str) -> None:
    """With far more clients than database connections, every request succeeds and the job completes."""
    manager = start_manager("--database-connections", "5", "--database-timeout", "PT30S")
    async with open_client(manager.url) as http:
        client = Client(http)
        job = await client.job()
        stage = await client.stage(job, stage_type)
        await client.tasks(stage, 1800)

        async def work(wire: Wire) -> None:
            for _ in range(3):
                task = await wire.claim(stage_type)
                assert task
                status, body = await wire.ask(b"GET", b"/v1/tasks/%s" % task)
                assert status == 200, body
                await wire.complete(task)
            wire.close()

        wires = [await Wire.open(manager.url) for _ in range(600)]
        await asyncio.gather(*(work(wire) for wire in wires))
        assert await client.status(job) == "COMPLETED"
