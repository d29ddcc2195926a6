"""The history: attempts at tasks, and every status change with its author and reason."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from pydantic_core import to_json

from reference_manager.domain.state_machine import Driver, Machine
from reference_manager.domain.states import JobStatus, Outcome, StageStatus, TaskStatus
from reference_manager.domain.transitions import JOB, STAGE, TASK
from reference_manager.engine.errors import require
from reference_manager.store.pool import Database, sql

Status = TypeVar("Status", JobStatus, StageStatus, TaskStatus)

CREATED = "it was created"
CLIENT, MANAGER = "client", "manager"
AUTHORS = {Driver.CLIENT: CLIENT, Driver.MANAGER: MANAGER}
OUTCOME_REASONS = {
    Outcome.COMPLETED: "its worker reports success",
    Outcome.FAILED: "its worker reports failure",
    Outcome.RELEASED: "its worker releases it",
    Outcome.SNOOZED: "its worker snoozes it",
    Outcome.EXPIRED: "its lease was not renewed",
    Outcome.TIMED_OUT: "the attempt took too long",
}


class Change(NamedTuple):
    """A status change."""

    source: str | None
    target: str
    at: datetime
    by: str
    reason: str


class History:
    """Reads the history as JSON, oldest first."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def attempts(self, task_id: UUID) -> str:
        """Return the attempts at a task. Raises NotFoundError."""
        async with self._database.connection() as connection:
            return require(await sql.task_attempts(connection, id=task_id), "task")

    async def of_job(self, job_id: UUID) -> str:
        """Return the status changes of a job. Raises NotFoundError."""
        async with self._database.connection() as connection:
            rows = [row async for row in sql.history_of_job(connection, job_id=job_id)]
        return _as_json(_with_reasons(JOB, JobStatus, require(rows or None, "job")))

    async def of_stage(self, stage_id: UUID) -> str:
        """Return the status changes of a stage. Raises NotFoundError."""
        async with self._database.connection() as connection:
            rows = [row async for row in sql.history_of_stage(connection, stage_id=stage_id)]
        return _as_json(_with_reasons(STAGE, StageStatus, require(rows or None, "stage")))

    async def of_task(self, task_id: UUID) -> str:
        """Return the status changes of a task, derived from its attempts. Raises NotFoundError."""
        async with self._database.connection() as connection:
            rows = [row async for row in sql.history_of_task(connection, task_id=task_id)]
        return _as_json(_changes_of_attempts(require(rows or None, "task")))


def _with_reasons(machine: Machine[Status], status: type[Status], rows: Sequence[Any]) -> Iterator[Change]:
    """Add the author and the reason of each change, from the edges of the state machine."""
    for row in rows:
        source, target = row["source"], status(row["target"])
        if source is None:
            yield Change(None, target, row["changed_at"], CLIENT, CREATED)
        else:
            edge = machine.edge(status(source), target)
            yield Change(source, target, row["changed_at"], AUTHORS[edge.driver], edge.cause)


def _changes_of_attempts(rows: Sequence[Any]) -> Iterator[Change]:
    """Derive the status changes of a task from the rows of its attempts."""
    status = TaskStatus.PENDING
    yield Change(None, status, rows[0]["created_at"], CLIENT, CREATED)
    for row in rows:
        if row["lease_id"] is None:
            continue
        worker = row["worker_id"] or CLIENT
        yield Change(row["source"], TaskStatus.IN_PROGRESS, row["start_time"], worker, "claimed")
        status = TaskStatus.IN_PROGRESS
        if row["target"] is not None:
            outcome = Outcome(row["outcome"])
            by = MANAGER if outcome in (Outcome.EXPIRED, Outcome.TIMED_OUT) else worker
            reason = OUTCOME_REASONS[outcome] + (f": {row['error_type']}" if row["error_type"] else "")
            status = TaskStatus(row["target"])
            yield Change(TaskStatus.IN_PROGRESS, status, row["end_time"], by, reason)
    if (aborted := rows[0]["aborted_at"]) is not None:
        edge = TASK.edge(status, TaskStatus.ABORTED)
        yield Change(status, edge.target, aborted, AUTHORS[edge.driver], edge.cause)


def _as_json(changes: Iterator[Change]) -> str:
    members = [
        {
            "from": change.source,
            "to": change.target,
            "at": f"{change.at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{change.at.microsecond // 1000:03}Z",
            "by": change.by,
            "reason": change.reason,
        }
        for change in changes
    ]
    return to_json(members).decode()
