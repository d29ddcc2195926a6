"""Jobnik: the worker of its SDK, against a manager."""

import asyncio
from collections.abc import Callable
from typing import Self

from jobnik_sdk import Empty, Handler, JobnikClient, JobType, Producer, StageType, TaskContext, Worker, run
from jobnik_sdk.settings import WorkerSettings

NOOPS = JobType("noops")
NOOP = StageType("noop", task=Empty)
CONCURRENCY = 200
BATCH = 1_000
AT_ONCE = 4


class Contender:
    """Tasks in the one stage of a job."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def __aenter__(self) -> Self:
        """Create a job whose stage stays open, since one task of it is not due for long."""
        self._client = JobnikClient(self._address)
        self._producer = Producer(self._client)
        self._job = await self._producer.create_job(NOOPS)
        self._stage = await self._producer.create_stage(self._job, NOOP)
        late = b'[{"data":{},"delaySeconds":86400}]'
        await self._client.request("POST", f"/v1/stages/{self._stage.id}/tasks", json=late)
        return self

    async def __aexit__(self, *error: object) -> None:
        """Abort what is left."""
        await self._producer.abort_job(self._job)
        await self._client.aclose()

    async def fill(self, count: int) -> None:
        """Create them in batches, some at a time."""
        batches = iter([min(BATCH, count - start) for start in range(0, count, BATCH)])

        async def create() -> None:
            for size in batches:
                await self._producer.create_tasks(self._stage, NOOP, [Empty()] * size)

        await asyncio.gather(*(create() for _ in range(AT_ONCE)))

    async def put(self) -> None:
        """Create one."""
        await self._producer.create_tasks(self._stage, NOOP, [Empty()])

    def work(self, note: Callable[[], None]) -> None:
        """Run as a generated worker does, with probes and metrics served."""

        async def noop(_task: Empty, _context: TaskContext) -> None:
            note()

        worker = Worker(JobnikClient(self._address), [Handler(NOOP, noop, concurrency=CONCURRENCY)])
        run(_Parts(self._address, worker))


class _Parts:
    def __init__(self, address: str, worker: Worker) -> None:
        self._address = address
        self._worker = worker

    def settings(self) -> WorkerSettings:
        return WorkerSettings(jobnik_base_url=self._address, log_level="WARNING", probe_host="127.0.0.1", probe_port=0)

    def worker(self) -> Worker:
        return self._worker
