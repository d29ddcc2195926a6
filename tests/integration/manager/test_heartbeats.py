"""Heartbeats of many workers: batched, without deadlocks, and each with its own answer."""

import asyncio
import random
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import httpx2
import pytest
from reference_manager.domain.commands import Heartbeat, RunningTask
from reference_manager.domain.payloads import encode
from reference_manager.engine.engine import Engine
from reference_manager.engine.workers import Workers
from reference_manager.store.errors import LockTimeoutError
from reference_manager.store.pool import Database

from tests.support.claims import ClaimedTask, claim_statement, claimed_tasks
from tests.support.sessions import Session
from tools.backlog import add_backlog
from tools.manager import ManagerProcess

WORKERS = 40


@pytest.fixture
def workers(database: Database) -> Workers:
    """The workers of a manager in this process."""
    return Engine(database, stale_after=timedelta(minutes=30)).workers


def heartbeat(worker: str, *running: tuple[ClaimedTask, float | None]) -> Heartbeat:
    """Return a heartbeat of a worker with its tasks, each with its progress, if any."""
    tasks = [
        RunningTask(held.task, held.lease, None if fraction is None else encode({"fraction": fraction}), None)
        for held, fraction in running
    ]
    return Heartbeat(worker, ["heartbeats"], None, None, draining=False, running=tasks)


async def claim(database: Database, worker: str, limit: int) -> list[ClaimedTask]:
    """Claim tasks of the type "heartbeats" for a worker."""
    async with database.connection() as connection:
        return list(claimed_tasks(await connection.fetch(*claim_statement("heartbeats", limit, worker))))


@pytest.mark.timeout(180)  # starts two managers and sends hundreds of requests
async def test_workers_that_return_at_once_are_all_answered(
    start_manager: Callable[..., ManagerProcess],
    database: Database,
    connection: Session,
) -> None:
    """Workers away for hours return through two managers: each receives its order to drain and keeps its lease."""
    async with (
        httpx2.AsyncClient(base_url=start_manager().url, timeout=15) as one,
        httpx2.AsyncClient(base_url=start_manager().url, timeout=15) as two,
    ):
        await add_backlog(database, "heartbeats", WORKERS)
        held = [(await claim(database, f"w{number}", 1))[0] for number in range(WORKERS)]

        async def send(http: httpx2.AsyncClient, number: int) -> object:
            running = [{"taskId": str(held[number].task), "leaseId": held[number].lease}]
            body = {"stageTypes": ["heartbeats"], "running": running}
            response = await http.post(f"/v1/workers/w{number}/heartbeat", json=body)
            return response.status_code, response.json()

        async def send_all() -> list[object]:
            numbers = random.sample(range(WORKERS), WORKERS)
            return await asyncio.gather(*(send((one, two)[turn % 2], number) for turn, number in enumerate(numbers)))

        kept: dict[str, object] = {"lost": [], "cancel": []}
        assert await send_all() == [(200, kept | {"drain": False})] * WORKERS
        await connection.execute("UPDATE workers SET drain_wanted = true")
        for _ in range(5):
            await connection.execute("UPDATE workers SET seen_at = now() - interval '2 hours'")
            before = await connection.fetchval("SELECT max(expires_at) FROM leases")
            assert await send_all() == [(200, kept | {"drain": True})] * WORKERS
            assert await connection.fetchval("SELECT min(expires_at) FROM leases") > before


async def test_a_batch_keeps_the_answers_apart(database: Database, workers: Workers, connection: Session) -> None:
    """Heartbeats in one batch renew only what their own worker holds, and the last one of a worker counts."""
    await add_backlog(database, "heartbeats", 3)
    (mine, more), (theirs,) = await claim(database, "me", 2), await claim(database, "them", 1)
    await workers.record_heartbeat(heartbeat("me"))
    await workers.order_drain("me", drain=True)
    old = await connection.fetchval("UPDATE leases SET expires_at = now() + interval '1 second' RETURNING expires_at")
    gone = ClaimedTask(UUID(int=1), 10_000)
    answers = await asyncio.gather(
        workers.record_heartbeat(heartbeat("me", (mine, 0.1), (theirs, 0.9), (gone, None))),
        workers.record_heartbeat(heartbeat("them", (mine, 0.9), (theirs, None))),
        workers.record_heartbeat(heartbeat("me", (mine, 0.2), (mine._replace(lease=theirs.lease), 0.9))),
    )
    assert answers == [
        ([theirs.lease, gone.lease], [], True),
        ([mine.lease], [], False),
        ([theirs.lease], [], True),
    ]
    rows = await connection.fetch("SELECT id, fraction, expires_at > $1 AS renewed FROM leases ORDER BY id", old)
    assert [(row["id"], row["fraction"] and float(row["fraction"]), row["renewed"]) for row in rows] == [
        (mine.lease, 0.2, True),
        (more.lease, None, False),
        (theirs.lease, None, True),
    ]
    assert await connection.fetchval("SELECT running FROM workers WHERE id = 'me'") == 2


async def test_heartbeats_with_many_tasks_are_split(
    database: Database, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch with more tasks than one statement takes is recorded in parts, and every worker gets its answer."""
    monkeypatch.setattr("reference_manager.engine.workers.RENEWAL_BATCH", 3)
    await add_backlog(database, "heartbeats", 10)
    held = {str(number): await claim(database, str(number), 2) for number in range(5)}
    lost = ClaimedTask(UUID(int=1), 10_000)
    sent = [heartbeat(name, *((each, None) for each in mine), (lost, None)) for name, mine in held.items()]
    answers = await asyncio.gather(*map(workers.record_heartbeat, sent))
    assert answers == [([lost.lease], [], False)] * 5


async def test_a_heartbeat_does_not_wait_for_a_locked_task(
    database: Database, workers: Workers, connection: Session, other: Session
) -> None:
    """It renews all leases and stores all other progress, and is refused, so that the worker sends it again."""
    await add_backlog(database, "heartbeats", 50)
    held = await claim(database, "me", 50)
    old = await connection.fetchval("UPDATE leases SET expires_at = now() + interval '1 second' RETURNING expires_at")
    sent = heartbeat("me", *((each, 0.5) for each in held))
    async with other.transaction():
        await other.fetch("SELECT FROM tasks WHERE id = $1 FOR UPDATE", held[25].task)
        with pytest.raises(LockTimeoutError, match="progress or checkpoint"):
            await workers.record_heartbeat(sent)
        assert await connection.fetchval("SELECT count(*) FROM leases WHERE expires_at > $1", old) == 50
        stored = "SELECT array_agg(id) FROM tasks WHERE progress IS NULL"
        assert await connection.fetchval(stored) == [held[25].task]
    assert await workers.record_heartbeat(sent) == ([], [], False)
    assert await connection.fetchval(stored) is None


async def test_leases_are_renewed_although_the_row_of_the_worker_is_locked(
    database: Database, workers: Workers, connection: Session, other: Session
) -> None:
    """The heartbeat is refused; a heartbeat of another worker at the same time is not."""
    await add_backlog(database, "heartbeats", 1)
    (mine,) = await claim(database, "me", 1)
    await workers.record_heartbeat(heartbeat("me"))
    old = await connection.fetchval("UPDATE leases SET expires_at = now() + interval '1 second' RETURNING expires_at")
    async with other.transaction():
        await other.fetch("SELECT FROM workers WHERE id = 'me' FOR UPDATE")
        refused, accepted = await asyncio.gather(
            workers.record_heartbeat(heartbeat("me", (mine, None))),
            workers.record_heartbeat(heartbeat("them")),
            return_exceptions=True,
        )
    assert isinstance(refused, LockTimeoutError)
    assert accepted == ([], [], False)
    assert await connection.fetchval("SELECT expires_at FROM leases") > old
