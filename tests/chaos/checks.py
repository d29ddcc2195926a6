"""Whether what the managers recorded is what happened."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import cycle, pairwise
from typing import Any
from uuid import UUID

import httpx2

from tests.chaos.attempts import Entity, Record, contradictions
from tests.chaos.load import Outcome
from tests.chaos.site import Site
from tests.support.invariants import violations

PARALLEL = 8
"""Requests to the managers at a time."""
SUMMARY = {
    "PENDING": "pending",
    "IN_PROGRESS": "inProgress",
    "COMPLETED": "completed",
    "FAILED": "failed",
    "RETRIED": "retried",
    "ABORTED": "aborted",
}
"""The figures of a stage's summary, by status of a task."""


class Checks:
    """What is checked once everything has settled; each check gives one sentence for each thing that is wrong.

    Args:
        site: Settled, with managers that answer.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self.outcomes: Counter[str] = Counter()
        """How many attempts with each outcome were checked."""
        self.statuses: Counter[str] = Counter()
        """How many tasks with each status were checked."""
        self._task_of: dict[int, str] = {}
        """By lease."""
        self._final: dict[UUID, Sequence[Entity]] = {}
        """The stages with their tasks of each job, when it was checked."""

    async def database(self) -> Sequence[str]:
        """What is true of the tables at any moment."""
        return [f"the database has {false}" for false in await self._site.ask(violations)]

    def answers(self) -> Sequence[str]:
        """What workers were answered, and managers had to log, that should never be."""
        self._site.journal.read()
        strange = [*self._site.journal.strange, *self._site.complaints(), *self._site.missing()]
        self._site.journal.strange.clear()
        return [f"never to be seen: {one}" for one in strange]

    async def jobs(self, endings: Mapping[UUID, Outcome]) -> Sequence[str]:
        """Jobs that have ended, with all that belongs to them."""
        found: list[str] = []
        async with self._reader() as reader:
            for job, ending in endings.items():
                found += await self._job(reader, job, ending)
        return found

    async def nothing_has_changed(self) -> Sequence[str]:
        """What was final when it was checked is as it was."""
        async with self._reader() as reader:
            return [
                f"job {job} has changed since it ended"
                for job, stages in self._final.items()
                if stages != await reader.get(f"/v1/jobs/{job}/stages?should_return_tasks=true")
            ]

    @asynccontextmanager
    async def _reader(self) -> AsyncGenerator["_Reader"]:
        async with httpx2.AsyncClient(timeout=30) as http:
            yield _Reader(http, [manager.url for manager in self._site.managers])

    async def _job(self, reader: "_Reader", job_id: UUID, ending: Outcome) -> Sequence[str]:
        job, history, stages = await asyncio.gather(
            reader.get(f"/v1/jobs/{job_id}"),
            reader.get(f"/v1/jobs/{job_id}/history"),
            reader.get(f"/v1/jobs/{job_id}/stages?should_return_tasks=true"),
        )
        self._final[job_id] = stages
        found = list(_chain(history, job["status"]))
        if job["status"] != ending and not (job["status"] == "ABORTED" and job_id in self._site.aborted):
            found.append(f"it is {job['status']}, and should be {ending}")
        for stage in stages:
            found += [f"stage {stage['id']}: {wrong}" for wrong in await self._stage(reader, stage)]
        return [f"job {job_id}: {wrong}" for wrong in found]

    async def _stage(self, reader: "_Reader", stage: Entity) -> Sequence[str]:
        found = list(_chain(await reader.get(f"/v1/stages/{stage['id']}/history"), stage["status"]))
        statuses = Counter(task["status"] for task in stage["tasks"])
        self.statuses += statuses
        figures = {name: statuses[status] for status, name in SUMMARY.items()}
        if stage["summary"] != figures | {"created": 0, "total": statuses.total()}:
            found.append(f"its summary is {stage['summary']}, its tasks are {dict(statuses)}")
        # In a stage that has failed others may wait for ever: they are not handed out.
        allowed = {"COMPLETED", "FAILED", "PENDING", "RETRIED"} if stage["status"] == "FAILED" else {stage["status"]}
        if stage["status"] == "ABORTED":
            allowed.add("COMPLETED")
        if not allowed.issuperset(statuses):
            found.append(f"it is {stage['status']}, its tasks are {dict(statuses)}")
        for record in await asyncio.gather(*(_record(reader, task) for task in stage["tasks"])):
            found += [f"task {record.task['id']}: {wrong}" for wrong in self._task(record)]
        return found

    def _task(self, record: Record) -> Iterator[str]:
        task, attempts, _ = record
        self.outcomes.update(attempt["outcome"] for attempt in attempts)
        for attempt in attempts:
            owner = self._task_of.setdefault(attempt["leaseId"], task["id"])
            if owner != task["id"]:
                yield f"lease {attempt['leaseId']} is that of task {owner}, too"
        missing = self._site.journal.leases[task["id"]] - {attempt["leaseId"] for attempt in attempts}
        if missing:
            yield f"leases {missing} were handed out and are not recorded"
        yield from contradictions(record, self._site.journal.stories, self._site.drained)


class _Reader:
    """Asks the managers in turn, a few requests at a time."""

    def __init__(self, http: httpx2.AsyncClient, managers: Sequence[str]) -> None:
        self._http = http
        self._managers = cycle(managers)
        self._turns = asyncio.Semaphore(PARALLEL)

    async def get(self, path: str) -> Any:  # noqa: ANN401 - any JSON
        async with self._turns:
            response = await self._http.get(f"{next(self._managers)}{path}")
        assert response.is_success, f"{path}: {response.text}"
        return response.json()


async def _record(reader: _Reader, task: Entity) -> Record:
    path = f"/v1/tasks/{task['id']}"
    attempts, history = await asyncio.gather(reader.get(f"{path}/attempts"), reader.get(f"{path}/history"))
    return Record(task, attempts, history)


def _chain(history: Sequence[Entity], status: str) -> Iterator[str]:
    """Every change begins where the one before ended, and the last is the status."""
    starts = [None, *(change["to"] for change in history)]
    if [change["from"] for change in history] + [status] != starts:
        yield f"it is {status}, its history is {history}"
    if any(after["at"] < before["at"] for before, after in pairwise(history)):
        yield f"its history goes back in time: {history}"
