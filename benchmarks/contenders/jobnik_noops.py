"""Jobnik: the worker of its SDK, against a manager."""

from collections.abc import Callable
from itertools import repeat
from typing import Self

from jobnik_sdk import (
    Empty,
    Handler,
    JobnikClient,
    JobType,
    Producer,
    StageType,
    TaskContext,
    Worker,
    WorkerSettings,
    run,
)

NOOPS = JobType("noops")
NOOP = StageType("noop", task=Empty)
CONCURRENCY = 500


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
        """Create them in a stream."""
        await self._producer.stream_tasks(self._stage, NOOP, repeat(Empty(), count))

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
