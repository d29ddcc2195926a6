"""Waiting for work: it comes as soon as it is there, and nobody who has gone away gets any."""

import asyncio
import signal
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx2
from reference_manager.engine.dispatch.notifications import CHANNEL

from tests.support.protocol import Client, branch
from tests.support.worker import LeasedWorker, report
from tools.manager import ManagerProcess

Start = Callable[..., ManagerProcess]

LONG = 20
"""Seconds that a claim waits, far more than it should take."""


async def waiting(worker: LeasedWorker, stage_type: str, **fields: Any) -> asyncio.Task[list[dict[str, Any]]]:  # noqa: ANN401 - any field
    """A claim that has arrived at the manager and waits there."""
    task = asyncio.create_task(worker.claim(stage_type, waitSeconds=LONG, **fields))
    await worker.claim(stage_type)  # whoever asks later is served later
    return task


async def test_work_reaches_those_who_wait(client: Client, stage_type: str) -> None:
    """Each way in which work comes up wakes a claim that waits for it."""
    worker = LeasedWorker(client.http)
    job = await client.job()
    first, second = await client.stage(job, stage_type), await client.stage(job, stage_type)

    claim = await waiting(worker, stage_type)
    await client.tasks(first, 1)
    (task,) = await claim

    claim = await waiting(worker, stage_type)
    await worker.settle(report(task, "RELEASED"))
    (task,) = await claim

    claim = await waiting(worker, stage_type)
    await worker.settle(report(task, "FAILED"))
    (task,) = await claim

    await client.tasks(second, 1)
    claim = await waiting(worker, stage_type)
    await worker.complete(task)
    (task,) = await claim
    assert task["stageId"] == second["id"]

    await client.tasks(second, 1)
    await client.move(job, "PAUSED")
    claim = await waiting(worker, stage_type)
    await client.move(job, "PENDING")
    assert len(await claim) == 1

    released = await client.stage(await client.job(), stage_type, startAsWaiting=True)
    await client.tasks(released, 1)
    claim = await waiting(worker, stage_type)
    await client.http.put(f"/v1/stages/{released['id']}/status", json={"status": "PENDING"})
    assert len(await claim) == 1


async def test_a_wait_ends_when_it_should(client: Client, stage_type: str) -> None:
    """Nothing came: an empty list, not before the time is up."""
    start = time.monotonic()
    assert await LeasedWorker(client.http).claim(stage_type, waitSeconds=0.5) == []
    assert time.monotonic() - start >= 0.5


async def test_tasks_are_shared_among_those_who_wait(client: Client, stage_type: str) -> None:
    """Who came first is served first; who gets nothing goes on waiting."""
    workers = [LeasedWorker(client.http) for _ in range(3)]
    claims = [await waiting(worker, stage_type, limit=2) for worker in workers]
    stage = await client.stage(await client.job(), stage_type)
    await client.tasks(stage, 3)
    got = await asyncio.gather(*claims[:2])
    assert [len(tasks) for tasks in got] == [2, 1]
    assert not claims[2].done()
    await client.tasks(stage, 1)
    assert len(await claims[2]) == 1


async def test_work_reaches_those_who_wait_at_another_manager(start_manager: Start, stage_type: str) -> None:
    """Managers tell each other; and where the word is lost, who waits finds the work himself."""
    here, there = start_manager(), start_manager()
    async with (
        httpx2.AsyncClient(base_url=here.url, timeout=30) as one,
        httpx2.AsyncClient(base_url=there.url, timeout=30) as two,
    ):
        client, worker = Client(one), LeasedWorker(two)
        stage = await client.stage(await client.job(), stage_type)
        for _ in range(5):
            claim = await waiting(worker, stage_type)
            await client.tasks(stage, 1)
            assert len(await claim) == 1


async def test_a_tree_reaches_those_who_wait_at_another_manager(
    start_manager: Start, connection: "asyncpg.Connection[asyncpg.Record]", stage_type: str
) -> None:
    """The manager that creates it tells the others, so that nobody has to look for its tasks himself."""
    heard = asyncio.Queue[str]()

    def hear(_connection: object, _pid: int, _channel: str, payload: object) -> None:
        heard.put_nowait(str(payload).partition(" ")[2])

    await connection.add_listener(CHANNEL, hear)
    here, there = start_manager(), start_manager()
    async with (
        httpx2.AsyncClient(base_url=here.url, timeout=30) as one,
        httpx2.AsyncClient(base_url=there.url, timeout=30) as two,
    ):
        client, worker = Client(one), LeasedWorker(two)
        for key in ("first", "second", "third"):
            claim = await waiting(worker, stage_type, limit=3)
            await client.job(stages=[branch(stage_type, 2), branch("later", 2)], uniqueKey=key)
            assert len(await claim) == 2
            async with asyncio.timeout(5):
                while not (word := await heard.get()):
                    pass  # managers that have just started hear themselves
            assert word == stage_type


async def test_the_lost_word_is_not_needed(start_manager: Start, database_url: str, stage_type: str) -> None:
    """Where notifications do not arrive, who waits looks for himself."""
    manager = start_manager()
    async with httpx2.AsyncClient(base_url=manager.url, timeout=30) as http:
        client, worker = Client(http), LeasedWorker(http)
        stage = await client.stage(await client.job(), stage_type)
        await client.tasks(stage, 1)
        (task,) = await worker.claim(stage_type)
        connection = await asyncpg.connect(database_url, server_settings={"search_path": "jobnik"})
        try:
            claim = await waiting(worker, stage_type)
            # Behind the manager's back: nobody is told.
            await connection.execute(
                "INSERT INTO tasks (stage_id, status, max_attempts, data, user_metadata, traceparent) "
                "SELECT stage_id, 'PENDING', 3, '{}', '{}', traceparent FROM tasks WHERE id = $1",
                task["id"],
            )
            await connection.execute(
                "INSERT INTO waiting_tasks SELECT stage_id, seq, id FROM tasks WHERE status = 'PENDING'"
            )
            await connection.execute("UPDATE stages SET oldest_waiting = 0, pending = pending + 1")
            assert len(await claim) == 1
        finally:
            await connection.close()


async def test_who_hangs_up_while_waiting_gets_nothing(client: Client, manager_url: str, stage_type: str) -> None:
    """A task that comes after its claimant has gone is the next one's, with no attempt burnt."""
    address = urlsplit(manager_url)
    for _ in range(5):
        _, writer = await asyncio.open_connection(address.hostname, address.port)
        body = f'{{"workerId":"gone","waitSeconds":{LONG}}}'
        writer.write(
            f"POST /v1/stages/{stage_type}/tasks/claim HTTP/1.1\r\nHost: manager\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        await writer.drain()
        await client.claim(stage_type)
        writer.close()
        await writer.wait_closed()
    worker = LeasedWorker(client.http)
    stage = await client.stage(await client.job(), stage_type)
    await client.tasks(stage, 10)
    got: list[dict[str, Any]] = []
    while len(got) < 10:  # what was just claimed for somebody who had gone comes back
        got += await worker.claim(stage_type, 10, waitSeconds=5)
    assert len({task["id"] for task in got}) == 10
    assert {task["attempts"] for task in got} == {0}


async def test_who_hangs_up_at_any_moment_strands_nothing(start_manager: Start, stage_type: str) -> None:
    """Clients of both kinds that vanish in the middle of their claims leave every task to those who stay."""
    manager = start_manager()
    address = urlsplit(manager.url)
    async with httpx2.AsyncClient(base_url=manager.url, timeout=30) as http:
        client, worker = Client(http), LeasedWorker(http)
        stage = await client.stage(await client.job(), stage_type)
        await client.tasks(stage, 300)

        async def vanish(number: int) -> None:
            _, writer = await asyncio.open_connection(address.hostname, address.port)
            body = '{"workerId":"gone","limit":3}'
            head = f"Host: manager\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
            path = f"/v1/stages/{stage_type}/tasks"
            claims = (
                f"POST {path}/claim HTTP/1.1\r\n{head}",
                f"PATCH {path}/dequeue HTTP/1.1\r\nHost: manager\r\n\r\n",
            )
            writer.write(claims[number % 2].encode())
            await writer.drain()
            await asyncio.sleep(number % 7 * 0.0005)
            writer.transport.abort()

        await asyncio.gather(*(vanish(number) for number in range(60)))
        done = 0
        while tasks := await worker.claim(stage_type, 100, waitSeconds=1):
            done += len(await worker.complete(*tasks))
        summary = (await client.read(stage))["summary"]
        # What had been answered before its client vanished is the lease's to bring back; all the rest is done.
        assert summary["completed"] == done
        assert done + summary["inProgress"] == 300
        assert done >= 300 - 60 * 3


async def test_a_manager_that_stops_lets_nobody_wait(start_manager: Start, stage_type: str) -> None:
    """Claims that wait are answered with nothing, so that the manager is gone long before their time is up."""
    manager = start_manager()
    async with httpx2.AsyncClient(base_url=manager.url, timeout=30) as http:
        worker = LeasedWorker(http)
        claims = [await waiting(worker, stage_type) for _ in range(3)]
        manager.process.send_signal(signal.SIGTERM)
        assert await asyncio.gather(*claims) == [[], [], []]
    assert await asyncio.to_thread(manager.process.wait, 10) == 0
