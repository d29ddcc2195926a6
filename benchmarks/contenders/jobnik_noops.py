"""Jobnik: the SDK's worker with a manager."""

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
    """Tasks in one stage of one job."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def __aenter__(self) -> Self:
        """Create a job whose stage stays open, because one of its tasks is due in a day."""
        self._client = JobnikClient(self._address)
        self._producer = Producer(self._client)
        self._job = await self._producer.create_job(NOOPS)
        self._stage = await self._producer.create_stage(self._job, NOOP)
        late = b'[{"data":{},"delaySeconds":86400}]'
        await self._client.request("POST", f"/v1/stages/{self._stage.id}/tasks", json=late)
        return self

    async def __aexit__(self, *error: object) -> None:
        """Abort the job and disconnect."""
        await self._producer.abort_job(self._job)
        await self._client.aclose()

    async def fill(self, count: int) -> None:
        """Create the tasks with a stream."""
        await self._producer.stream_tasks(self._stage, NOOP, repeat(Empty(), count))

    async def put(self) -> None:
        """Create one task."""
        await self._producer.create_tasks(self._stage, NOOP, [Empty()])

    def work(self, note: Callable[[], None]) -> None:
        """Run the worker as a rendered project does, with probes and metrics."""

        async def noop(_task: Empty, _context: TaskContext) -> None:
            note()

        worker = Worker(JobnikClient(self._address), [Handler(NOOP, noop, concurrency=CONCURRENCY)])
        run(_Container(self._address, worker))


class _Container:
    def __init__(self, address: str, worker: Worker) -> None:
        self._address = address
        self._worker = worker

    def settings(self) -> WorkerSettings:
        return WorkerSettings(jobnik_base_url=self._address, log_level="WARNING", probe_host="127.0.0.1", probe_port=0)

    def worker(self) -> Worker:
        return self._worker
