"""Claims that wait for work get it as soon as it is available, and disconnected clients get none."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from reference_manager.engine.dispatch.notifications import CHANNEL

from tests.support.protocol import Client, branch
from tests.support.sessions import Session, session
from tests.support.worker import LeasedWorker, report
from tools.manager import ManagerProcess

Start = Callable[..., ManagerProcess]

WAIT = 20
"""Seconds that a claim waits at most, far longer than a test needs."""


async def waiting_claim(worker: LeasedWorker, stage_type: str, **fields: Any) -> asyncio.Task[list[dict[str, Any]]]:  # noqa: ANN401 - any field
    """Return a claim that has arrived at the manager and waits there."""
    task = asyncio.create_task(worker.claim(stage_type, waitSeconds=WAIT, **fields))
    await worker.claim(stage_type)  # a later claim is served later, so the first one has arrived
    return task


async def test_new_work_wakes_a_waiting_claim(client: Client, stage_type: str) -> None:
    """A waiting claim is woken by every way in which a task can become claimable."""
    worker = LeasedWorker(client.http)
    job = await client.job()
    first, second = await client.stage(job, stage_type), await client.stage(job, stage_type)

    claim = await waiting_claim(worker, stage_type)
    await client.tasks(first, 1)
    (task,) = await claim

    claim = await waiting_claim(worker, stage_type)
    await worker.settle(report(task, "RELEASED"))
    (task,) = await claim

    claim = await waiting_claim(worker, stage_type)
    await worker.settle(report(task, "FAILED"))
    (task,) = await claim

    await client.tasks(second, 1)
    claim = await waiting_claim(worker, stage_type)
    await worker.complete(task)
    (task,) = await claim
    assert task["stageId"] == second["id"]

    await client.tasks(second, 1)
    await client.move(job, "PAUSED")
    claim = await waiting_claim(worker, stage_type)
    await client.move(job, "PENDING")
    assert len(await claim) == 1

    released = await client.stage(await client.job(), stage_type, startAsWaiting=True)
    await client.tasks(released, 1)
    claim = await waiting_claim(worker, stage_type)
    await client.http.put(f"/v1/stages/{released['id']}/status", json={"status": "PENDING"})
    assert len(await claim) == 1


async def test_a_wait_ends_after_its_time(client: Client, stage_type: str) -> None:
    """Without work, a claim returns an empty list, and not before its time is over."""
    start = time.monotonic()
    assert await LeasedWorker(client.http).claim(stage_type, waitSeconds=0.5) == []
    assert time.monotonic() - start >= 0.5


async def test_tasks_are_distributed_among_waiting_claims(client: Client, stage_type: str) -> None:
    """The claim that came first is served first, and claims that get nothing keep waiting."""
    workers = [LeasedWorker(client.http) for _ in range(3)]
    claims = [await waiting_claim(worker, stage_type, limit=2) for worker in workers]
    stage = await client.stage(await client.job(), stage_type)
    await client.tasks(stage, 3)
    claimed = await asyncio.gather(*claims[:2])
    assert [len(tasks) for tasks in claimed] == [2, 1]
    assert not claims[2].done()
    await client.tasks(stage, 1)
    assert len(await claims[2]) == 1


async def test_new_work_wakes_a_claim_at_another_manager(two_urls: Sequence[str], stage_type: str) -> None:
    """Managers notify each other of work."""
    here, there = two_urls
    async with (
        httpx2.AsyncClient(base_url=here, timeout=30) as one,
        httpx2.AsyncClient(base_url=there, timeout=30) as two,
    ):
        client, worker = Client(one), LeasedWorker(two)
        stage = await client.stage(await client.job(), stage_type)
        for _ in range(5):
            claim = await waiting_claim(worker, stage_type)
            await client.tasks(stage, 1)
            assert len(await claim) == 1


async def test_a_tree_wakes_a_claim_at_another_manager(
    start_manager: Start, connection: Session, stage_type: str
) -> None:
    """The manager that creates a tree notifies the others, so that their claims need not poll for its tasks."""
    notifications = asyncio.Queue[str]()

    def listen(_connection: object, _pid: int, _channel: str, payload: object) -> None:
        notifications.put_nowait(str(payload).partition(" ")[2])

    await connection.add_listener(CHANNEL, listen)
    here, there = start_manager(), start_manager()
    async with (
        httpx2.AsyncClient(base_url=here.url, timeout=30) as one,
        httpx2.AsyncClient(base_url=there.url, timeout=30) as two,
    ):
        client, worker = Client(one), LeasedWorker(two)
        for key in ("first", "second", "third"):
            claim = await waiting_claim(worker, stage_type, limit=3)
            await client.job(stages=[branch(stage_type, 2), branch("later", 2)], uniqueKey=key)
            assert len(await claim) == 2
            async with asyncio.timeout(5):
                while not (notification := await notifications.get()):
                    pass  # managers that have just started receive their own notifications
            assert notification == stage_type


async def test_a_lost_notification_delays_but_does_not_lose_work(
    start_manager: Start, database_url: str, stage_type: str
) -> None:
    """Without a notification, a waiting claim finds the work by polling."""
    manager = start_manager()
    async with httpx2.AsyncClient(base_url=manager.url, timeout=30) as http:
        client, worker = Client(http), LeasedWorker(http)
        stage = await client.stage(await client.job(), stage_type)
        await client.tasks(stage, 1)
        (task,) = await worker.claim(stage_type)
        async with session(database_url) as connection:
            claim = await waiting_claim(worker, stage_type)
            # These statements bypass the manager, so there is no notification.
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


async def test_a_client_that_disconnects_while_waiting_gets_no_task(
    client: Client, manager_url: str, stage_type: str
) -> None:
    """A task that arrives after the client has disconnected goes to the next claim, without using up an attempt."""
    address = urlsplit(manager_url)
    for _ in range(5):
        _, writer = await asyncio.open_connection(address.hostname, address.port)
        body = f'{{"workerId":"gone","waitSeconds":{WAIT}}}'
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
    claimed: list[dict[str, Any]] = []
    while len(claimed) < 10:  # tasks that were just claimed for disconnected clients return
        claimed += await worker.claim(stage_type, 10, waitSeconds=5)
    assert len({task["id"] for task in claimed}) == 10
    assert {task["attempts"] for task in claimed} == {0}


@pytest.mark.parametrize("size", [0, 60_000, 300_000])
async def test_a_client_that_sends_further_requests_and_disconnects_gets_no_task(
    client: Client, manager_url: str, stage_type: str, size: int
) -> None:
    """Requests behind a waiting claim do not hide the disconnect. If they are large, the connection is closed."""
    address = urlsplit(manager_url)
    stage = await client.stage(await client.job(), stage_type)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    claim = f'{{"workerId":"gone","waitSeconds":{WAIT}}}'
    head = "Host: manager\r\nContent-Type: application/json\r\nContent-Length: "
    writer.write(f"POST /v1/stages/{stage_type}/tasks/claim HTTP/1.1\r\n{head}{len(claim)}\r\n\r\n{claim}".encode())
    await writer.drain()
    await client.claim(stage_type)
    writer.write(f"POST /v1/jobs HTTP/1.1\r\n{head}{size}\r\n\r\n{' ' * size}".encode())
    with suppress(OSError):  # the connection may be closed already
        writer.write_eof()
        assert await reader.read() == b""
    writer.close()
    (task,) = await client.tasks(stage)
    claimed = await LeasedWorker(client.http).claim(stage_type, waitSeconds=5)
    assert [(one["id"], one["attempts"]) for one in claimed] == [(task["id"], 0)]


async def test_clients_that_disconnect_at_any_moment_lose_no_task(start_manager: Start, stage_type: str) -> None:
    """Clients of both kinds that disconnect in the middle of their claims leave every task to the others."""
    manager = start_manager()
    address = urlsplit(manager.url)
    async with httpx2.AsyncClient(base_url=manager.url, timeout=30) as http:
        client, worker = Client(http), LeasedWorker(http)
        stage = await client.stage(await client.job(), stage_type)
        await client.tasks(stage, 300)

        async def disconnect(number: int) -> None:
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

        await asyncio.gather(*(disconnect(number) for number in range(60)))
        done = 0
        while tasks := await worker.claim(stage_type, 100, waitSeconds=1):
            done += len(await worker.complete(*tasks))
        summary = (await client.read(stage))["summary"]
        # Tasks in responses to disconnected clients return when their leases expire. All others are completed.
        assert summary["completed"] == done
        assert done + summary["inProgress"] == 300
        assert done >= 300 - 60 * 3
