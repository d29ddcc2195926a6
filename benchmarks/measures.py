"""The measurements of the engine. Each method runs one measurement once."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from reference_manager.engine.dispatch.claims import BYTE_BUDGET
from reference_manager.store.pool import Database, sql

from tools.backlog import add_backlog, add_finished
from tools.wire import Wire

STALE_AFTER = timedelta(minutes=30)
NONE = [None]


@dataclass
class Bench:
    """A PostgreSQL and the managers on it."""

    database: Database
    urls: Sequence[str]

    async def fill(self, stage_type: str, count: int, finished: int = 0) -> None:
        """Create a job with `count` waiting and `finished` completed tasks, then vacuum and analyze."""
        stage_id = await add_backlog(self.database, stage_type, count)
        await add_finished(self.database, stage_id, finished)
        async with self.database.connection() as connection:
            await connection.execute("VACUUM ANALYZE")
            await connection.execute("CHECKPOINT")

    async def direct(self, stage_type: str, count: int) -> float:
        """Return the tasks/s of the claim and report statements, one task at a time, on one connection."""
        async with self.database.connection() as connection:
            arguments = stage_type, 1, [1], [None], [STALE_AFTER], [False], BYTE_BUDGET
            start = time.perf_counter()
            for _ in range(count):
                (claimed,) = await connection.fetch(sql.task_claim.sql, *arguments)
                item = claimed["tasks"], NONE, NONE
                if not await connection.fetch(sql.task_complete.sql, *item, NONE, None):
                    await connection.fetch(sql.task_settle.sql, *item, ["COMPLETED"], NONE, NONE, [True], NONE, NONE)
            return count / (time.perf_counter() - start)

    async def one_by_one(self, stage_type: str, count: int, connections: int) -> float:
        """Return the tasks/s over HTTP with one task per request, as clients without leases work."""
        left = count

        async def work(wire: Wire) -> None:
            nonlocal left
            while left > 0:
                left -= 1
                if task_id := await wire.claim(stage_type):
                    await wire.complete(task_id)

        wires = await self._connect(connections)
        start = time.perf_counter()
        await asyncio.gather(*(work(wire) for wire in wires))
        elapsed = time.perf_counter() - start
        _close(wires)
        return count / elapsed

    async def in_batches(self, stage_type: str, count: int, connections: int) -> float:
        """Return the tasks/s over HTTP with leases and 100 tasks per claim and report."""
        left = count

        async def work(wire: Wire, worker_id: str) -> None:
            nonlocal left
            while left > 0:
                left -= 100
                await wire.complete_many(worker_id, await wire.claim_many(stage_type, worker_id, 100))

        wires = await self._connect(connections)
        start = time.perf_counter()
        await asyncio.gather(*(work(wire, f"worker-{number}") for number, wire in enumerate(wires)))
        elapsed = time.perf_counter() - start
        _close(wires)
        return count / elapsed

    async def pickup(self, stage_type: str, count: int) -> tuple[list[float], list[float]]:
        """Return the seconds until a waiting worker receives a new task, sorted.

        The first list counts from the creation request, the second from its response.
        """
        producer, worker = await self._connect(2)
        status, job = await producer.ask(b"POST", b"/v1/jobs", b'{"name":"pickup","data":{}}')
        body = b'{"type":"%s","data":{}}' % stage_type.encode()
        _, stage = await producer.ask(b"POST", b"/v1/jobs/%s/stage" % job[7:43], body)
        path = b"/v1/stages/%s/tasks" % stage[7:43]
        claim = b'{"workerId":"pickup","waitSeconds":20}'

        async def at_end(asked: Awaitable[tuple[int, bytes]]) -> tuple[float, tuple[int, bytes]]:
            answer = await asked
            return time.perf_counter(), answer

        since_request: list[float] = []
        since_response: list[float] = []
        for _ in range(count):
            claiming = worker.ask(b"POST", b"/v1/stages/%s/tasks/claim" % stage_type.encode(), claim)
            waiting = asyncio.create_task(at_end(claiming))
            await asyncio.sleep(0.02)  # until the claim has arrived and waits
            asked = time.perf_counter()
            created, _ = await at_end(producer.ask(b"POST", path, b'[{"data":{}}]'))
            picked_up, (status, answer) = await waiting
            if status != 200 or b"leaseId" not in answer:  # noqa: PLR2004 - the claim returned a task
                raise RuntimeError(f"The claim returned no task: {answer!r}")
            since_request.append(picked_up - asked)
            since_response.append(picked_up - created)
        _close([producer, worker])
        return sorted(since_request), sorted(since_response)

    async def liveness(self, count: int) -> float:
        """Return the median duration of GET /liveness in seconds, one request at a time."""
        (wire,) = await self._connect(1)
        seconds: list[float] = []
        for _ in range(count):
            start = time.perf_counter()
            await wire.ask(b"GET", b"/liveness")
            seconds.append(time.perf_counter() - start)
            await asyncio.sleep(0.005)
        wire.close()
        return statistics.median(seconds)

    async def _connect(self, connections: int) -> list[Wire]:
        return [await Wire.open(self.urls[number % len(self.urls)]) for number in range(connections)]


def _close(wires: Sequence[Wire]) -> None:
    for wire in wires:
        wire.close()
