"""Ends attempts, in lanes: what is simple on a short way, everything else under the job's lock.

Where somebody else has that lock, those who need it wait in a batcher of the job, so that nobody else waits with them.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from time import perf_counter
from typing import NamedTuple, TypeAlias
from uuid import UUID

from reference_manager.domain.commands import Report
from reference_manager.domain.states import Outcome, TaskStatus
from reference_manager.engine import metrics
from reference_manager.engine.dispatch.batching import Batcher
from reference_manager.engine.dispatch.notifications import Notifications
from reference_manager.engine.encoding import encode_optional
from reference_manager.store.pool import Connection, Database, Record, sql

BATCH = 128
"""The most reports of several callers in one statement. Larger ones gain nothing, and while one caller's statement runs
the manager can write another's answer."""


class Verdict(NamedTuple):
    """What became of a report."""

    source: TaskStatus | None
    """The status that the task had; None: there is no such task."""
    target: TaskStatus | None
    """The status that it has got, by this report or when the same was distinct before; None: the report was refused."""
    body: str | None
    """The task as JSON, where it was claimed without a lease."""


_COMPLETED = Verdict(TaskStatus.IN_PROGRESS, TaskStatus.COMPLETED, None)

ReportBatcher: TypeAlias = Batcher[Report, Verdict]


class Settlements:
    """Takes reports."""

    def __init__(self, database: Database, notifications: Notifications) -> None:
        self._database = database
        self._notifications = notifications
        self._completed: ReportBatcher = Batcher(self._complete, BATCH)
        self._others: ReportBatcher = Batcher(self._settle_free, BATCH)
        self._of_jobs: dict[UUID, ReportBatcher] = {}

    def submit(self, reports: Sequence[Report]) -> asyncio.Future[Sequence[Verdict]]:
        """Take reports; what becomes of each, to come."""
        completed = any(report.outcome is Outcome.COMPLETED for report in reports)
        return (self._completed if completed else self._others).submit(reports)

    async def _complete(self, reports: Sequence[Report]) -> Sequence[Verdict | ReportBatcher]:
        verdicts: list[Verdict | ReportBatcher] = [self._others] * len(reports)
        places = [place for place, report in enumerate(reports) if report.outcome is Outcome.COMPLETED]
        completed = [reports[place] for place in places]
        async with self._database.connection(for_workers=True) as connection:
            began = perf_counter()
            rows = await connection.fetch(
                sql.task_complete.sql,
                [report.task_id for report in completed],
                [report.lease_id for report in completed],
                [report.worker_id for report in completed],
                [encode_optional(report.result) for report in completed],
            )
        metrics.observe_statement(metrics.COMPLETE, began, len(completed))
        for place, body in rows:
            verdicts[places[place - 1]] = _COMPLETED if body is None else _COMPLETED._replace(body=body)
        return verdicts

    async def _settle_free(self, reports: Sequence[Report]) -> Sequence[Verdict | ReportBatcher]:
        distinct = _distinct(reports)
        async with self._database.connection(for_workers=True) as connection:
            rows = await _ask(connection, sql.task_settle_free.sql, list(distinct.values()))
        self._notifications.notify(_woken(rows))
        verdicts = [self._of_job(row["busy"]) if row["busy"] else _verdict(row) for row in rows]
        return self._answers(reports, distinct, verdicts)

    async def _settle(self, reports: Sequence[Report]) -> Sequence[Verdict | ReportBatcher]:
        distinct = _distinct(reports)
        async with self._database.connection() as connection:
            verdicts, woken = await settle(connection, list(distinct.values()))
        self._notifications.notify(woken)
        return self._answers(reports, distinct, verdicts)

    def _of_job(self, job_id: UUID) -> ReportBatcher:
        """The batcher of those who wait for this job's lock; it stays only while somebody does."""
        batcher = self._of_jobs.get(job_id)
        if batcher is None:
            batcher = self._of_jobs[job_id] = Batcher(self._settle, BATCH, partial(self._of_jobs.pop, job_id))
        return batcher

    @staticmethod
    def _answers(
        reports: Sequence[Report], distinct: dict[object, Report], verdicts: Sequence[Verdict | ReportBatcher]
    ) -> Sequence[Verdict | ReportBatcher]:
        metrics.LEASES_LOST.inc(sum(map(_lease_lost, distinct.values(), verdicts)))
        answers = dict(zip(distinct, verdicts, strict=True))
        return [answers[_attempt(report)] for report in reports]


def _distinct(reports: Sequence[Report]) -> dict[object, Report]:
    """Of what is distinct twice in one batch, one is asked and both are answered."""
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
        [encode_optional(report.result) for report in reports],
        [encode_optional(report.error) for report in reports],
        [report.retryable for report in reports],
        [report.delay for report in reports],
        [encode_optional(report.checkpoint) for report in reports],
    )
    metrics.observe_statement(metrics.SETTLE, began, len(reports))
    return rows


def _verdict(row: Record) -> Verdict:
    source, target = row["source"], row["target"]
    return Verdict(TaskStatus(source) if source else None, TaskStatus(target) if target else None, row["body"])


def _woken(rows: Sequence[Record]) -> Sequence[str]:
    return next((row["woken"] for row in rows if row["woken"]), ())


def _lease_lost(report: Report, verdict: Verdict | ReportBatcher) -> bool:
    if isinstance(verdict, Batcher):
        return False
    return report.lease_id is not None and verdict.source is not None and verdict.target is None
