"""Ends attempts whose lease has expired: their worker crashed, hangs, or never received the response to its claim."""

from collections.abc import Collection, Sequence
from datetime import timedelta
from uuid import UUID

from reference_manager.domain.commands import Report
from reference_manager.domain.payloads import encode
from reference_manager.domain.states import Outcome
from reference_manager.engine import metrics
from reference_manager.engine.dispatch.handover import Handover
from reference_manager.engine.dispatch.reports import settle, settle_free
from reference_manager.engine.maintenance.job_maintenance import JobMaintenance
from reference_manager.store.pool import Connection, Record, sql

LEASES_IN_A_PASS = 2000
BATCH_SIZE = 200


class LeaseSweeper(JobMaintenance):
    """Fails attempts with expired leases. A task becomes RETRIED while it has attempts left, otherwise FAILED."""

    name = "lease sweeper"
    batch_size = BATCH_SIZE

    def __init__(self, handover: Handover) -> None:
        super().__init__()
        self._handover = handover

    async def is_due(self, connection: Connection) -> bool:
        """Return whether a lease has expired."""
        return await sql.leases_are_due(connection)

    async def pending(self, connection: Connection, passed: Sequence[UUID]) -> Sequence[Record]:
        """Return expired leases."""
        return await connection.fetch(sql.leases_expired.sql, passed, LEASES_IN_A_PASS)

    async def work(
        self, connection: Connection, rows: Sequence[Record], *, waits: bool
    ) -> tuple[int, Collection[UUID]]:
        """End attempts. Return their number."""
        reports = [_report(*lease) for _, *lease, _ in rows]
        async with self._handover.on(connection) as transaction:
            verdicts, stage_types = await (settle if waits else settle_free)(connection, reports)
            await transaction.announce(stage_types)
        ended = 0
        for row, report, verdict in zip(rows, reports, verdicts, strict=True):
            if verdict and verdict.target:
                metrics.LEASES_EXPIRED.labels(metrics.label(row["stage_type"]), report.outcome).inc()
                ended += 1
        return ended, {row["job_id"] for row, verdict in zip(rows, verdicts, strict=True) if verdict is None}


def _report(task_id: UUID, lease_id: int, worker_id: str | None, timed_out: bool, length: timedelta) -> Report:  # noqa: FBT001 - a row
    if timed_out:
        outcome, kind, message = Outcome.TIMED_OUT, "TimedOut", "The attempt took longer than its time limit"
    elif worker_id is None:
        outcome, kind, message = Outcome.EXPIRED, "Stale", f"No report arrived within {length}"
    else:
        outcome, kind = Outcome.EXPIRED, "LeaseExpired"
        message = f"Worker {worker_id} did not renew its lease within {length}"
    return Report(task_id, lease_id, worker_id, outcome, error=encode({"type": kind, "message": message}))
