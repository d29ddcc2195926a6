"""Ends attempts whose lease has expired: their worker crashed, hangs, or never received the response to its claim."""

from datetime import timedelta
from uuid import UUID

from reference_manager.domain.commands import Report
from reference_manager.domain.states import Outcome
from reference_manager.engine import metrics
from reference_manager.engine.dispatch.notifications import Notifications
from reference_manager.engine.dispatch.reports import settle
from reference_manager.engine.maintenance.maintenance_task import MaintenanceTask
from reference_manager.store.pool import Connection, sql

BATCH_SIZE = 200


class LeaseSweeper(MaintenanceTask):
    """Fails attempts with expired leases. A task becomes RETRIED while it has attempts left, otherwise FAILED."""

    name = "lease sweeper"

    def __init__(self, notifications: Notifications) -> None:
        self._notifications = notifications

    async def round(self, connection: Connection) -> int:
        """End all attempts whose lease has expired. Return their number."""
        done = 0
        while expired := [row async for row in sql.leases_expired(connection, limit=BATCH_SIZE)]:
            reports = [_report(*lease) for *lease, _ in expired]
            verdicts, stage_types = await settle(connection, reports)
            self._notifications.notify(stage_types)
            ended = 0
            for row, report, verdict in zip(expired, reports, verdicts, strict=True):
                if verdict.target:
                    metrics.LEASES_EXPIRED.labels(metrics.label(row["stage_type"]), report.outcome).inc()
                    ended += 1
            done += ended
            if len(expired) < BATCH_SIZE or not ended:
                break
        return done


def _report(task_id: UUID, lease_id: int, worker_id: str | None, timed_out: bool, length: timedelta) -> Report:  # noqa: FBT001 - a row
    if timed_out:
        outcome, kind, message = Outcome.TIMED_OUT, "TimedOut", "The attempt took longer than its time limit"
    elif worker_id is None:
        outcome, kind, message = Outcome.EXPIRED, "Stale", f"No report arrived within {length}"
    else:
        outcome, kind = Outcome.EXPIRED, "LeaseExpired"
        message = f"Worker {worker_id} did not renew its lease within {length}"
    return Report(task_id, lease_id, worker_id, outcome, error={"type": kind, "message": message})
