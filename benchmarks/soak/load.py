"""The load of the soak: jobs of several shapes, their workers, and deletions of finished jobs.

All clients run in one process, each on its own connection to one of the managers.
"""

import asyncio
import json
import random
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple

from tools.backlog import PICTURE
from tools.wire import LEASE, TASK, Wire

ATTEMPTS = re.compile(rb'"attempts":(\d+)')
WAIT = 2
"""Seconds for which a claim waits if nothing is waiting for it."""
LEASE_SECONDS = 10
HEARTBEAT_INTERVAL, PROBE_INTERVAL, DELETION_INTERVAL = 2.0, 0.1, 0.5
"""Seconds. A manager closes a connection that is idle for longer than a few seconds."""
LOST_TASKS = 0.01
"""Share of the claims of which the worker loses one task, so that its lease expires and the task is retried."""
FAILURE = b'"outcome":"FAILED","delaySeconds":0.5,"error":{"type":"Planned","message":"planned","stack":""}'
CONNECTIONS = 8
"""Concurrent requests that create jobs, and that delete jobs, for each manager. Enough while requests are slow."""
MAX_DELAY = 5.0
"""Seconds by which the producers may fall behind their schedule. They then skip what they missed."""


class Shape(NamedTuple):
    """A kind of job, with one stage, and its workers."""

    stage_type: str
    jobs: int
    """Number of jobs in a set."""
    tasks: int
    """Number of tasks in a job."""
    limit: int
    """Maximum number of tasks in a claim."""
    workers: int
    """Number of workers of each manager."""
    delay: float = 0.0
    """Seconds before a task may be claimed."""
    fails: int = 0
    """Number of failed attempts of each task."""
    attempts: int = 100
    """Maximum number of failed attempts, after which a task fails. Enough for tasks that workers lose."""

    @property
    def body(self) -> bytes:
        """The request that creates a job."""
        task: dict[str, Any] = {"data": PICTURE, "maxAttempts": self.attempts}
        if self.delay:
            task["delaySeconds"] = self.delay
        stage: dict[str, Any] = {"type": self.stage_type, "data": {}, "tasks": [task] * self.tasks}
        return json.dumps({"name": self.stage_type, "data": {}, "stages": [stage]}).encode()


SHAPES = (
    Shape("batches", jobs=1, tasks=100, limit=100, workers=2),
    Shape("single", jobs=20, tasks=1, limit=1, workers=6),
    Shape("delayed", jobs=1, tasks=10, limit=10, workers=1, delay=2),
    Shape("retried", jobs=1, tasks=10, limit=10, workers=1, fails=1),
    Shape("failing", jobs=2, tasks=1, limit=5, workers=1, fails=1, attempts=1),
)
TASKS = sum(shape.jobs * shape.tasks for shape in SHAPES)
"""Number of tasks in a set of jobs."""


class Load:
    """Clients of the managers, which run until `stop`.

    Args:
        urls: The addresses of the managers.
        keep: Seconds after its creation at which a job is deleted, if it has ended.
    """

    def __init__(self, urls: Sequence[str], keep: float) -> None:
        self._urls = urls
        self._keep = keep
        self._clients: list[asyncio.Task[None]] = []
        self._wires: list[Wire] = []
        self._created: deque[tuple[float, bytes]] = deque()
        self._stopping = False
        self.seconds: dict[str, list[float]] = {"claim": [], "settle": [], "liveness": []}
        """Durations of requests since `take`, by kind. Claims that waited for tasks are not included."""
        self.events: Counter[str] = Counter()
        """Number of events since the start."""

    @property
    def outstanding(self) -> int:
        """The number of tasks that have been created and have not ended."""
        return self.events["tasks created"] - self.events["tasks completed"] - self.events["tasks failed"]

    def take(self) -> dict[str, list[float]]:
        """Return the durations since the last call."""
        taken, self.seconds = self.seconds, {kind: [] for kind in self.seconds}
        return taken

    async def start_workers(self) -> None:
        """Start the workers, the deletion of jobs and the probes."""
        for number, url in enumerate(self._urls):
            names = {f"{shape.stage_type}-{number}-{one}": shape for shape in SHAPES for one in range(shape.workers)}
            for name, shape in names.items():
                await self._start(url, lambda wire, name=name, shape=shape: self._work(wire, name, shape))
            await self._start(url, lambda wire, names=names: self._send_heartbeats(wire, names))
            await self._start(url, self._probe)
            self._clients += [asyncio.create_task(self._delete(url)) for _ in range(CONNECTIONS)]

    async def produce(self, seconds: float, rate: float | None, limit: int = 0) -> None:
        """Create jobs for some seconds.

        Args:
            seconds: How long.
            rate: Tasks per second; None: as many as are processed, with up to `limit` outstanding.
            limit: The maximum number of outstanding tasks if there is no rate.
        """
        bodies = [shape for shape in SHAPES for _ in range(shape.jobs)]
        random.shuffle(bodies)
        requests = [(shape, shape.body) for shape in bodies]
        wires = [await Wire.open(url) for url in self._urls for _ in range(CONNECTIONS)]
        start = time.monotonic()
        tasks, turn = 0, 0  # scheduled, and created so far

        async def create(wire: Wire) -> None:
            nonlocal tasks, turn
            while (now := time.monotonic()) < start + seconds:
                if rate is None:
                    if self.outstanding > limit:
                        await asyncio.sleep(0.01)
                        continue
                elif (due := start + tasks / rate) > now:
                    await asyncio.sleep(min(due - now, 1))
                    continue
                elif now - due > MAX_DELAY:
                    self.events["tasks skipped"] += round((now - due) * rate)
                    tasks = round((now - start) * rate)
                shape, body = requests[turn % len(requests)]
                turn += 1
                tasks += shape.tasks
                status, answer = await wire.ask(b"POST", b"/v1/jobs", body)
                if self._is_success(status, answer):
                    self._created.append((time.monotonic(), answer[7:43]))
                    self.events["jobs created"] += 1
                    self.events["tasks created"] += shape.tasks

        await asyncio.gather(*map(create, wires))
        for wire in wires:
            wire.close()

    async def stop(self) -> None:
        """Stop all clients after their current requests."""
        self._stopping = True
        await asyncio.gather(*self._clients)
        for wire in self._wires:
            wire.close()

    def check(self) -> None:
        """Raise the error of a client that has ended."""
        for client in self._clients:
            if client.done():
                client.result()

    async def _start(self, url: str, run: Callable[[Wire], Coroutine[None, None, None]]) -> None:
        wire = await Wire.open(url)
        self._wires.append(wire)
        self._clients.append(asyncio.create_task(run(wire)))

    async def _work(self, wire: Wire, name: str, shape: Shape) -> None:
        """Claim tasks and report them. Only claims that do not wait are timed."""
        path = f"/v1/stages/{shape.stage_type}/tasks/claim".encode()
        body = {"workerId": name, "limit": shape.limit, "leaseSeconds": LEASE_SECONDS}
        claim, wait = json.dumps(body).encode(), json.dumps(body | {"waitSeconds": WAIT}).encode()
        while not self._stopping:
            status, answer = await self._timed("claim", wire.ask(b"POST", path, claim))
            if self._is_success(status, answer) and b"leaseId" not in answer:
                status, answer = await wire.ask(b"POST", path, wait)
            if not self._is_success(status, answer):
                continue
            tasks = list(zip(TASK.findall(answer), LEASE.findall(answer), ATTEMPTS.findall(answer), strict=True))
            if tasks and shape.attempts > 1 and random.random() < LOST_TASKS:  # noqa: S311 - any tasks
                tasks.pop()
                self.events["tasks lost by workers"] += 1
            if tasks:
                await self._settle(wire, name, shape, tasks)

    async def _settle(self, wire: Wire, name: str, shape: Shape, tasks: Sequence[tuple[bytes, bytes, bytes]]) -> None:
        reports = b",".join(_report(task, lease, failed=int(attempts) < shape.fails) for task, lease, attempts in tasks)
        body = b'{"workerId":"%s","results":[%s]}' % (name.encode(), reports)
        status, answer = await self._timed("settle", wire.ask(b"POST", b"/v1/tasks/settle", body))
        if not self._is_success(status, answer):
            return
        for outcome in ("COMPLETED", "FAILED", "RETRIED"):
            self.events[f"tasks {outcome.lower()}"] += answer.count(b'"status":"%s"' % outcome.encode())
        self.events["reports refused"] += answer.count(b'"accepted":false')

    async def _send_heartbeats(self, wire: Wire, names: dict[str, Shape]) -> None:
        """Send the heartbeats of the workers of a manager."""
        while not self._stopping:
            for name, shape in names.items():
                body = json.dumps({"stageTypes": [shape.stage_type], "running": []}).encode()
                self._is_success(*await wire.ask(b"POST", b"/v1/workers/%s/heartbeat" % name.encode(), body))
            await asyncio.sleep(HEARTBEAT_INTERVAL)

    async def _probe(self, wire: Wire) -> None:
        while not self._stopping:
            self._is_success(*await self._timed("liveness", wire.ask(b"GET", b"/liveness")))
            await asyncio.sleep(PROBE_INTERVAL)

    async def _delete(self, url: str) -> None:
        """Delete jobs some time after their creation, and those that have not ended by then another time later."""
        while not self._stopping:
            await asyncio.sleep(DELETION_INTERVAL)
            wire = await Wire.open(url)
            while self._created and self._created[0][0] < time.monotonic() - self._keep:
                _, job = self._created.popleft()
                status, answer = await wire.ask(b"DELETE", b"/v1/jobs/%s" % job)
                if b"JOB_NOT_IN_FINITE_STATE" not in answer and self._is_success(status, answer):
                    self.events["jobs deleted"] += 1
                else:
                    self._created.append((time.monotonic(), job))
            wire.close()

    async def _timed(self, kind: str, request: Coroutine[None, None, tuple[int, bytes]]) -> tuple[int, bytes]:
        start = time.perf_counter()
        answer = await request
        self.seconds[kind].append(time.perf_counter() - start)
        return answer

    def _is_success(self, status: int, answer: bytes) -> bool:
        """Return whether a request succeeded. Only 503 may be answered otherwise, and is counted.

        Raises:
            RuntimeError: The manager refused the request.
        """
        if status == 503:  # noqa: PLR2004 - the database is busy
            self.events["requests answered with 503"] += 1
        elif status >= 300:  # noqa: PLR2004 - no success
            raise RuntimeError(f"A manager answered {status}: {answer!r}")
        return status < 300  # noqa: PLR2004 - success


def _report(task: bytes, lease: bytes, *, failed: bool) -> bytes:
    outcome = FAILURE if failed else b'"outcome":"COMPLETED"'
    return b'{"taskId":"%s","leaseId":%s,%s}' % (task, lease, outcome)
