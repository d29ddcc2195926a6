"""Check that the managers' records match what happened."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from itertools import cycle, pairwise
from typing import Any
from uuid import UUID

import httpx2

from tests.chaos.attempts import Entity, TaskRecord, contradictions
from tests.chaos.cluster import Cluster, eventually
from tests.chaos.load import Outcome
from tests.support.invariants import violations

PARALLEL = 8
"""Maximum number of parallel requests to the managers."""
SUMMARY = {
    "PENDING": "pending",
    "IN_PROGRESS": "inProgress",
    "COMPLETED": "completed",
    "FAILED": "failed",
    "RETRIED": "retried",
    "ABORTED": "aborted",
}
"""The fields of a stage summary, by task status."""


class Checks:
    """Checks of a settled cluster. Each check returns one sentence per problem.

    Args:
        cluster: A settled cluster whose managers are available.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.outcomes: Counter[str] = Counter()
        """Number of checked attempts, by outcome."""
        self.statuses: Counter[str] = Counter()
        """Number of checked tasks, by status."""
        self._task_of: dict[int, str] = {}
        """Task ids, by lease."""
        self._final: dict[UUID, Sequence[Entity]] = {}
        """The stages and tasks of each job when it was checked."""

    async def database(self) -> Sequence[str]:
        """Check the invariants of the database, which hold at any time."""
        return [f"the database has {false}" for false in await self._cluster.ask(violations)]

    def responses_and_logs(self) -> Sequence[str]:
        """Check for unexpected responses, log entries and process exits."""
        self._cluster.journal.read()
        unexpected = [
            *self._cluster.journal.unexpected,
            *self._cluster.unexpected_logs(),
            *self._cluster.missing_workers(),
        ]
        self._cluster.journal.unexpected.clear()
        return [f"unexpected: {one}" for one in unexpected]

    async def jobs(self, expected_outcomes: Mapping[UUID, Outcome]) -> Sequence[str]:
        """Check finished jobs with their stages, tasks and attempts."""
        found: list[str] = []
        async with self._reader() as reader:
            for job, expected in expected_outcomes.items():
                found += await self._job(reader, job, expected)
        return found

    async def nothing_has_changed(self) -> Sequence[str]:
        """Check that jobs have not changed since they were checked as final."""
        async with self._reader() as reader:
            return [
                f"job {job} changed after it ended"
                for job, stages in self._final.items()
                if stages != await reader.get(f"/v1/jobs/{job}/stages?should_return_tasks=true")
            ]

    @asynccontextmanager
    async def _reader(self) -> AsyncGenerator["_Reader"]:
        async with httpx2.AsyncClient(timeout=30) as http:
            yield _Reader(http, [manager.url for manager in self._cluster.managers])

    async def _job(self, reader: "_Reader", job_id: UUID, expected: Outcome) -> Sequence[str]:
        job, history, stages = await asyncio.gather(
            reader.get(f"/v1/jobs/{job_id}"),
            reader.get(f"/v1/jobs/{job_id}/history"),
            reader.get(f"/v1/jobs/{job_id}/stages?should_return_tasks=true"),
        )
        self._final[job_id] = stages
        found = list(_chain(history, job["status"]))
        if job["status"] != expected and not (job["status"] == "ABORTED" and job_id in self._cluster.aborted):
            found.append(f"it is {job['status']}, but should be {expected}")
        for stage in stages:
            found += [f"stage {stage['id']}: {wrong}" for wrong in await self._stage(reader, stage)]
        return [f"job {job_id}: {wrong}" for wrong in found]

    async def _stage(self, reader: "_Reader", stage: Entity) -> Sequence[str]:
        found = list(_chain(await reader.get(f"/v1/stages/{stage['id']}/history"), stage["status"]))
        statuses = Counter(task["status"] for task in stage["tasks"])
        self.statuses += statuses
        figures = {name: statuses[status] for status, name in SUMMARY.items()}
        if stage["summary"] != figures | {"created": 0, "total": statuses.total()}:
            found.append(f"its summary is {stage['summary']}, but its tasks are {dict(statuses)}")
        # In a failed stage, waiting tasks are never handed out.
        allowed = {"COMPLETED", "FAILED", "PENDING", "RETRIED"} if stage["status"] == "FAILED" else {stage["status"]}
        if stage["status"] == "ABORTED":
            allowed.add("COMPLETED")
        if not allowed.issuperset(statuses):
            found.append(f"it is {stage['status']}, but its tasks are {dict(statuses)}")
        for record in await asyncio.gather(*(_record(reader, task) for task in stage["tasks"])):
            found += [f"task {record.task['id']}: {wrong}" for wrong in self._task(record)]
        return found

    def _task(self, record: TaskRecord) -> Iterator[str]:
        task, attempts, _ = record
        self.outcomes.update(attempt["outcome"] for attempt in attempts)
        for attempt in attempts:
            owner = self._task_of.setdefault(attempt["leaseId"], task["id"])
            if owner != task["id"]:
                yield f"lease {attempt['leaseId']} also belongs to task {owner}"
        missing = self._cluster.journal.leases[task["id"]] - {attempt["leaseId"] for attempt in attempts}
        if missing:
            yield f"leases {missing} were granted, but are not recorded"
        yield from contradictions(record, self._cluster.journal.worker_records, self._cluster.drained)


class _Reader:
    """Sends requests to the managers in turn, a few in parallel."""

    def __init__(self, http: httpx2.AsyncClient, managers: Sequence[str]) -> None:
        self._http = http
        self._managers = cycle(managers)
        self._turns = asyncio.Semaphore(PARALLEL)

    async def get(self, path: str) -> Any:  # noqa: ANN401 - any JSON
        async def answer() -> httpx2.Response | None:
            response = await self._http.get(f"{next(self._managers)}{path}")
            return None if response.status_code == HTTPStatus.SERVICE_UNAVAILABLE else response

        async with self._turns:
            response = await eventually("a manager is not too busy to answer", answer)
        assert response.is_success, f"{path}: {response.text}"
        return response.json()


async def _record(reader: _Reader, task: Entity) -> TaskRecord:
    path = f"/v1/tasks/{task['id']}"
    attempts, history = await asyncio.gather(reader.get(f"{path}/attempts"), reader.get(f"{path}/history"))
    return TaskRecord(task, attempts, history)


def _chain(history: Sequence[Entity], status: str) -> Iterator[str]:
    """Check that each change continues the previous one and that the last one matches the status."""
    starts = [None, *(change["to"] for change in history)]
    if [change["from"] for change in history] + [status] != starts:
        yield f"it is {status}, but its history is {history}"
    if any(after["at"] < before["at"] for before, after in pairwise(history)):
        yield f"its history is not in chronological order: {history}"
