"""Ends attempts, in lanes: what is simple on a short way, everything else under the job's lock."""

import asyncio
from collections.abc import Sequence
from time import perf_counter
from typing import NamedTuple

from reference_manager.domain.requests import Report
from reference_manager.domain.states import Outcome, TaskStatus
from reference_manager.engine import meters
from reference_manager.engine.encoding import encode_if_given
from reference_manager.engine.lane import Lane
from reference_manager.engine.wakeups import Wakeups
from reference_manager.store.database import Connection, Database, sql

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


class Settlements:
    """Takes reports."""

    def __init__(self, database: Database, wakeups: Wakeups) -> None:
        self._database = database
        self._wakeups = wakeups
        self._alone: Lane[Report, Verdict] = Lane(self._settle, BATCH)
        self._together: Lane[Report, Verdict] = Lane(self._complete, BATCH, beyond=self._alone)

    def submit(self, reports: Sequence[Report]) -> asyncio.Future[Sequence[Verdict]]:
        """Take reports; what becomes of each, to come."""
        completed = any(report.outcome is Outcome.COMPLETED for report in reports)
        return (self._together if completed else self._alone).submit(reports)

    async def _complete(self, reports: Sequence[Report]) -> Sequence[Verdict | None]:
        verdicts: list[Verdict | None] = [None] * len(reports)
        places = [place for place, report in enumerate(reports) if report.outcome is Outcome.COMPLETED]
        completed = [reports[place] for place in places]
        async with self._database.connection() as connection:
            began = perf_counter()
            rows = await connection.fetch(
                sql.task_complete.sql,
                [report.task_id for report in completed],
                [report.lease_id for report in completed],
                [report.worker_id for report in completed],
                [encode_if_given(report.result) for report in completed],
            )
        meters.answered(meters.COMPLETE, began, len(completed))
        for place, body in rows:
            verdicts[places[place - 1]] = _COMPLETED if body is None else _COMPLETED._replace(body=body)
        return verdicts

    async def _settle(self, reports: Sequence[Report]) -> Sequence[Verdict]:
        # Of what is said twice in one batch, one is asked and both are answered.
        said: dict[object, Report] = {_attempt(report): report for report in reversed(reports)}
        async with self._database.connection() as connection:
            verdicts, woken = await settle(connection, list(said.values()))
        self._wakeups.notify(woken)
        meters.LEASES_LOST.inc(sum(map(_lease_lost, said.values(), verdicts)))
        answers = dict(zip(said, verdicts, strict=True))
        return [answers[_attempt(report)] for report in reports]


def _attempt(report: Report) -> object:
    """What reports of the same attempt have in common; without a lease nobody knows, and each is one of its own."""
    return id(report) if report.lease_id is None else (report.task_id, report.lease_id, report.worker_id)


async def settle(connection: Connection, reports: Sequence[Report]) -> tuple[Sequence[Verdict], Sequence[str]]:
    """End attempts with all that follows; the verdicts, and the stage types for which there is work now."""
    began = perf_counter()
    rows = await connection.fetch(
        sql.task_settle.sql,
        [report.task_id for report in reports],
        [report.lease_id for report in reports],
        [report.worker_id for report in reports],
        [report.outcome for report in reports],
        [encode_if_given(report.result) for report in reports],
        [encode_if_given(report.error) for report in reports],
        [report.retryable for report in reports],
        [report.delay for report in reports],
    )
    meters.answered(meters.SETTLE, began, len(reports))
    woken = rows[0]["woken"] if rows else None
    return [
        Verdict(TaskStatus(source) if source else None, TaskStatus(target) if target else None, body)
        for source, target, body, _ in rows
    ], woken or ()


def _lease_lost(report: Report, verdict: Verdict) -> bool:
    return report.lease_id is not None and verdict.source is not None and verdict.target is None
