"""Ends attempts, in lanes: what is simple on a short way, everything else under the job's lock.

Where somebody else has that lock, those who need it wait in a lane of the job, so that nobody else waits with them.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from time import perf_counter
from typing import NamedTuple, TypeAlias
from uuid import UUID

from reference_manager.domain.requests import Report
from reference_manager.domain.states import Outcome, TaskStatus
from reference_manager.engine import metrics
from reference_manager.engine.dispatch.batching import Lane
from reference_manager.engine.dispatch.notifications import Wakeups
from reference_manager.engine.encoding import encode_if_given
from reference_manager.store.pool import Connection, Database, Record, sql

BATCH = 128
"""The most reports of several callers in one statement. Larger ones gain nothing, and while one caller's statement runs
the manager can write another's answer."""


class Verdict(NamedTuple):
    """What became of a report."""

    source: TaskStatus | None
    """The status that the task had; None: there is no such task."""
    target: TaskStatus | None
    """The status that it has got, by this report or when the same was said before; None: the report was refused."""
    body: str | None
    """The task as JSON, where it was claimed without a lease."""


_COMPLETED = Verdict(TaskStatus.IN_PROGRESS, TaskStatus.COMPLETED, None)

ReportLane: TypeAlias = Lane[Report, Verdict]


class Settlements:
    """Takes reports."""

    def __init__(self, database: Database, wakeups: Wakeups) -> None:
        self._database = database
        self._wakeups = wakeups
        self._together: ReportLane = Lane(self._complete, BATCH)
        self._alone: ReportLane = Lane(self._settle_free, BATCH)
        self._of_jobs: dict[UUID, ReportLane] = {}

    def submit(self, reports: Sequence[Report]) -> asyncio.Future[Sequence[Verdict]]:
        """Take reports; what becomes of each, to come."""
        completed = any(report.outcome is Outcome.COMPLETED for report in reports)
        return (self._together if completed else self._alone).submit(reports)

    async def _complete(self, reports: Sequence[Report]) -> Sequence[Verdict | ReportLane]:
        verdicts: list[Verdict | ReportLane] = [self._alone] * len(reports)
        places = [place for place, report in enumerate(reports) if report.outcome is Outcome.COMPLETED]
        completed = [reports[place] for place in places]
        async with self._database.connection(for_workers=True) as connection:
            began = perf_counter()
            rows = await connection.fetch(
                sql.task_complete.sql,
                [report.task_id for report in completed],
                [report.lease_id for report in completed],
                [report.worker_id for report in completed],
                [encode_if_given(report.result) for report in completed],
            )
        metrics.answered(metrics.COMPLETE, began, len(completed))
        for place, body in rows:
            verdicts[places[place - 1]] = _COMPLETED if body is None else _COMPLETED._replace(body=body)
        return verdicts

    async def _settle_free(self, reports: Sequence[Report]) -> Sequence[Verdict | ReportLane]:
        said = _distinct(reports)
        async with self._database.connection(for_workers=True) as connection:
            rows = await _ask(connection, sql.task_settle_free.sql, list(said.values()))
        self._wakeups.notify(_woken(rows))
        verdicts = [self._of_job(row["busy"]) if row["busy"] else _verdict(row) for row in rows]
        return self._answers(reports, said, verdicts)

    async def _settle(self, reports: Sequence[Report]) -> Sequence[Verdict | ReportLane]:
        said = _distinct(reports)
        async with self._database.connection() as connection:
            verdicts, woken = await settle(connection, list(said.values()))
        self._wakeups.notify(woken)
        return self._answers(reports, said, verdicts)

    def _of_job(self, job_id: UUID) -> ReportLane:
        """The lane of those who wait for this job's lock; it stays only while somebody does."""
        lane = self._of_jobs.get(job_id)
        if lane is None:
            lane = self._of_jobs[job_id] = Lane(self._settle, BATCH, partial(self._of_jobs.pop, job_id))
        return lane

    @staticmethod
    def _answers(
        reports: Sequence[Report], said: dict[object, Report], verdicts: Sequence[Verdict | ReportLane]
    ) -> Sequence[Verdict | ReportLane]:
        metrics.LEASES_LOST.inc(sum(map(_lease_lost, said.values(), verdicts)))
        answers = dict(zip(said, verdicts, strict=True))
        return [answers[_attempt(report)] for report in reports]


def _distinct(reports: Sequence[Report]) -> dict[object, Report]:
    """Of what is said twice in one batch, one is asked and both are answered."""
    return {_attempt(report): report for report in reversed(reports)}


def _attempt(report: Report) -> object:
    """What reports of the same attempt have in common; without a lease nobody knows, and each is one of its own."""
    return id(report) if report.lease_id is None else (report.task_id, report.lease_id, report.worker_id)


async def settle(connection: Connection, reports: Sequence[Report]) -> tuple[Sequence[Verdict], Sequence[str]]:
    """End attempts with all that follows; the verdicts, and the stage types for which there is work now."""
    rows = await _ask(connection, sql.task_settle.sql, reports)
    return [_verdict(row) for row in rows], _woken(rows)


async def _ask(connection: Connection, statement: str, reports: Sequence[Report]) -> Sequence[Record]:
    began = perf_counter()
    rows = await connection.fetch(
        statement,
        [report.task_id for report in reports],
        [report.lease_id for report in reports],
        [report.worker_id for report in reports],
        [report.outcome for report in reports],
        [encode_if_given(report.result) for report in reports],
        [encode_if_given(report.error) for report in reports],
        [report.retryable for report in reports],
        [report.delay for report in reports],
        [encode_if_given(report.checkpoint) for report in reports],
    )
    metrics.answered(metrics.SETTLE, began, len(reports))
    return rows


def _verdict(row: Record) -> Verdict:
    source, target = row["source"], row["target"]
    return Verdict(TaskStatus(source) if source else None, TaskStatus(target) if target else None, row["body"])


def _woken(rows: Sequence[Record]) -> Sequence[str]:
    return next((row["woken"] for row in rows if row["woken"]), ())


def _lease_lost(report: Report, verdict: Verdict | ReportLane) -> bool:
    if isinstance(verdict, Lane):
        return False
    return report.lease_id is not None and verdict.source is not None and verdict.target is None
