"""Settles reports in batches: simple ones with a short statement, all others under the lock of their job.

If another session has locked a job or one of its rows, the reports that need it wait in a batcher of that job, so that
reports of other jobs do not wait with them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial
from time import perf_counter
from typing import NamedTuple, TypeAlias, TypeVar
from uuid import UUID

from reference_manager.domain.commands import Report
from reference_manager.domain.states import Outcome, TaskStatus
from reference_manager.engine import metrics
from reference_manager.engine.dispatch.batching import Batcher
from reference_manager.engine.dispatch.handover import Handover
from reference_manager.engine.dispatch.pacing import Pacing
from reference_manager.store.errors import LockTimeoutError
from reference_manager.store.pool import Connection, Database, Record, sql

BATCH_SIZE = 128
"""The maximum number of reports of several callers in one statement. Larger statements gain nothing, and
while one runs, the manager can write the responses to another."""

MAX_SKIPS = 15
"""The maximum number of batches in a row that skip the short statement, after it completed no task of a batch. If the
queue is nearly empty, most tasks are the last ones of their stage, and it would be sent in vain."""


UNDECIDED_AFTER = 1.0
"""Seconds after the first verdict of a request until the others are answered as undecided."""


class Verdict(NamedTuple):
    """The decision on a report."""

    source: TaskStatus | None
    """The previous status of the task; None if there is no such task."""
    target: TaskStatus | None
    """The new status of the task, by this report or an identical earlier one; None if the report was refused."""
    body: str | None
    """The task as JSON if it was claimed without a lease, otherwise None."""


_COMPLETED = Verdict(TaskStatus.IN_PROGRESS, TaskStatus.COMPLETED, None)

ReportBatcher: TypeAlias = Batcher[Report, Verdict]
Decision = TypeVar("Decision", bound=Verdict | ReportBatcher)
Process: TypeAlias = Callable[[Sequence[Report]], Awaitable[Sequence[Verdict | ReportBatcher]]]


class Settlements:
    """Settles reports, in several batchers.

    Args:
        database: The database of the tasks.
        handover: Hands over tasks that can be claimed because of a report.
        pacing: Decides when statements are sent that serve reports of many jobs.
    """

    def __init__(self, database: Database, handover: Handover, pacing: Pacing) -> None:
        self._database = database
        self._handover = handover
        self._completions: ReportBatcher = Batcher(
            partial(self._pass_by_locked, self._complete), BATCH_SIZE, pacing=pacing
        )
        self._general: ReportBatcher = Batcher(
            partial(self._pass_by_locked, self._settle_unlocked), BATCH_SIZE, pacing=pacing
        )
        self._job_batchers: dict[UUID | None, ReportBatcher] = {}
        self._skips = self._skips_left = 0

    def submit(self, reports: Sequence[Report]) -> asyncio.Future[Sequence[Verdict]]:
        """Settle reports. Returns a future of one verdict for each report, in order."""
        return self._entry(reports).submit(reports)

    def submit_partial(self, reports: Sequence[Report]) -> asyncio.Future[Sequence[Verdict | Exception | None]]:
        """Settle reports, without letting those of a locked job delay the answer to the others.

        Returns:
            A future of one result for each report, in order: its verdict, the error that it failed with, or None if it
            is undecided: then it may still count, or may be dropped.
        """
        return self._entry(reports).submit_partial(reports, UNDECIDED_AFTER)

    def _entry(self, reports: Sequence[Report]) -> ReportBatcher:
        completed = any(report.outcome is Outcome.COMPLETED for report in reports)
        return self._completions if completed else self._general

    async def _pass_by_locked(self, process: Process, reports: Sequence[Report]) -> Sequence[Verdict | ReportBatcher]:
        """Process reports. While others wait for a locked job, forward those that need a locked row.

        Otherwise, each further report of this job would make the reports beside it wait for the lock.
        """
        if not self._job_batchers:
            return await process(reports)
        rows = await self._find_locked(reports)
        free = [report for report, row in zip(reports, rows, strict=True) if not row["locked"]]
        verdicts = iter(await process(free) if free else ())
        return [self._job_batcher(row["job_id"]) if row["locked"] else next(verdicts) for row in rows]

    async def _complete(self, reports: Sequence[Report]) -> Sequence[Verdict | ReportBatcher]:
        if self._skips_left:
            self._skips_left -= 1
            return [self._general] * len(reports)
        try:
            verdicts = await self._complete_simple(reports)
        except LockTimeoutError:
            verdicts = [self._general] * len(reports)
        if all(verdict is self._general for verdict in verdicts):
            self._skips = min(2 * self._skips + 1, MAX_SKIPS)
        else:
            self._skips = 0
        self._skips_left = self._skips
        return verdicts

    async def _complete_simple(
        self, reports: Sequence[Report], wait: timedelta | None = None
    ) -> Sequence[Verdict | ReportBatcher]:
        """Complete the tasks whose completion has no consequences.

        Args:
            reports: The reports.
            wait: How long to wait for each lock. None: as a batch of reports of many jobs does.

        Returns:
            The verdicts; for other reports, where to forward them.

        Raises:
            LockTimeoutError: Another session has locked a row.
        """
        verdicts: list[Verdict | ReportBatcher] = [self._general] * len(reports)
        indexes = [index for index, report in enumerate(reports) if report.outcome is Outcome.COMPLETED]
        completed = [reports[index] for index in indexes]
        if not completed:
            return verdicts
        started = perf_counter()
        async with self._database.connection(for_workers=wait is None) as connection:
            rows = await connection.fetch(
                sql.task_complete.sql,
                [report.task_id for report in completed],
                [report.lease_id for report in completed],
                [report.worker_id for report in completed],
                [report.result for report in completed],
                wait,
            )
        metrics.observe_statement(metrics.COMPLETE, started, len(completed))
        for places, bodies, busy in rows:
            if busy or bodies is None:
                decision = self._job_batcher(busy) if busy else _COMPLETED
                for place in places:
                    verdicts[indexes[place - 1]] = decision
            else:
                for place, body in zip(places, bodies, strict=True):
                    verdicts[indexes[place - 1]] = _COMPLETED._replace(body=body)
        return verdicts

    async def _settle_unlocked(self, reports: Sequence[Report]) -> Sequence[Verdict | ReportBatcher]:
        distinct = _distinct(reports)
        try:
            async with self._handover.transaction(for_workers=True) as transaction:
                rows = await _execute(transaction.connection, sql.task_settle_free.sql, list(distinct.values()))
                await transaction.announce(_claimable_types(rows))
        except LockTimeoutError:
            return await self._separate(reports)
        verdicts = [self._job_batcher(row["busy"]) if row["busy"] else _verdict(row) for row in rows]
        return self._verdicts(reports, distinct, verdicts)

    async def _separate(self, reports: Sequence[Report]) -> Sequence[ReportBatcher]:
        """Forward the reports that need a locked row to the batchers of their jobs, and repeat the others.

        If the locked row is not among those that are checked, forward all reports.
        """
        rows = await self._find_locked(reports)
        found = any(row["locked"] for row in rows)
        return [self._job_batcher(row["job_id"]) if row["locked"] or not found else self._general for row in rows]

    async def _find_locked(self, reports: Sequence[Report]) -> Sequence[Record]:
        """Return, for each report, its job, and whether another session has locked a row that the report needs."""
        async with self._database.connection(for_workers=True) as connection:
            return await connection.fetch(sql.task_find_locked.sql, [report.task_id for report in reports])

    async def _settle_waiting(self, job_id: UUID | None, reports: Sequence[Report]) -> Sequence[Verdict]:
        """Settle reports once their job is free. Meanwhile, no connection and no lease is held for long."""
        verdicts: dict[int, Verdict] = {}
        attempt = partial(self._settle_locking, reports, verdicts)
        await self._database.lock_waits.run(("reports", job_id), attempt)
        return [verdicts[index] for index in range(len(reports))]

    async def _settle_locking(self, reports: Sequence[Report], verdicts: dict[int, Verdict], wait: timedelta) -> None:
        """Settle the reports of one job that have no verdict yet. Raises LockTimeoutError if the job is locked."""
        left = {index: report for index, report in enumerate(reports) if index not in verdicts}
        # If completions took the lock exclusively, too, those of several managers would keep one another waiting.
        for index, verdict in zip(tuple(left), await self._complete_simple(list(left.values()), wait), strict=True):
            if isinstance(verdict, Verdict):
                verdicts[index] = verdict
                del left[index]
            elif verdict is not self._general:
                raise LockTimeoutError("another session has locked the job")
        if not left:
            return
        distinct = _distinct(list(left.values()))
        async with self._handover.transaction(several=True) as transaction:
            task_ids = [report.task_id for report in distinct.values()]
            if not await sql.task_lock_to_settle(transaction.connection, ids=task_ids, wait=wait):
                raise LockTimeoutError("another session has locked the job")
            settled, stage_types = await settle(transaction.connection, list(distinct.values()))
            await transaction.announce(stage_types)
        verdicts |= zip(left, self._verdicts(list(left.values()), distinct, settled), strict=True)

    def _job_batcher(self, job_id: UUID | None) -> ReportBatcher:
        """Return the batcher of the reports that wait for this job. It exists only while there are any.

        The caller forwards reports to it at once: after an ``await``, it might be another one.

        Args:
            job_id: The job; None for tasks that do not exist.
        """
        batcher = self._job_batchers.get(job_id)
        if batcher is None:
            remove = partial(self._job_batchers.pop, job_id)
            batcher = self._job_batchers[job_id] = Batcher(partial(self._settle_waiting, job_id), BATCH_SIZE, remove)
        return batcher

    @staticmethod
    def _verdicts(
        reports: Sequence[Report], distinct: dict[object, Report], verdicts: Sequence[Decision]
    ) -> Sequence[Decision]:
        """Return the verdict on each report, given those on the distinct reports."""
        metrics.LEASES_LOST.inc(sum(map(_lease_lost, distinct.values(), verdicts)))
        by_attempt = dict(zip(distinct, verdicts, strict=True))
        return [by_attempt[_attempt(report)] for report in reports]


def _distinct(reports: Sequence[Report]) -> dict[object, Report]:
    """Return one report for each attempt, the first one: a repeated report gets the same verdict."""
    return {_attempt(report): report for report in reversed(reports)}


def _attempt(report: Report) -> object:
    """Return the identity of a report's attempt. Without a lease, each report counts as a separate attempt."""
    return id(report) if report.lease_id is None else (report.task_id, report.lease_id, report.worker_id)


async def settle(connection: Connection, reports: Sequence[Report]) -> tuple[Sequence[Verdict], Sequence[str]]:
    """End attempts, with all consequences.

    Returns:
        The verdicts, and the stage types that have claimable tasks because of the reports.
    """
    rows = await _execute(connection, sql.task_settle.sql, reports)
    return [_verdict(row) for row in rows], _claimable_types(rows)


async def settle_free(
    connection: Connection, reports: Sequence[Report]
) -> tuple[Sequence[Verdict | None], Sequence[str]]:
    """Like ``settle``, without waiting for locks: the verdict is None if another session has locked the job."""
    rows = await _execute(connection, sql.task_settle_free.sql, reports)
    return [None if row["busy"] else _verdict(row) for row in rows], _claimable_types(rows)


async def _execute(connection: Connection, statement: str, reports: Sequence[Report]) -> Sequence[Record]:
    started = perf_counter()
    rows = await connection.fetch(
        statement,
        [report.task_id for report in reports],
        [report.lease_id for report in reports],
        [report.worker_id for report in reports],
        [report.outcome for report in reports],
        [report.result for report in reports],
        [report.error for report in reports],
        [report.retryable for report in reports],
        [report.delay for report in reports],
        [report.checkpoint for report in reports],
    )
    metrics.observe_statement(metrics.SETTLE, started, len(reports))
    return rows


def _verdict(row: Record) -> Verdict:
    source, target = row["source"], row["target"]
    return Verdict(TaskStatus(source) if source else None, TaskStatus(target) if target else None, row["body"])


def _claimable_types(rows: Sequence[Record]) -> Sequence[str]:
    return next((row["woken"] for row in rows if row["woken"]), ())


def _lease_lost(report: Report, verdict: Verdict | ReportBatcher) -> bool:
    if isinstance(verdict, Batcher):
        return False
    return report.lease_id is not None and verdict.source is not None and verdict.target is None
