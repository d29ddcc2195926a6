"""The history: attempts at tasks, and every status change with its author and reason."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from pydantic_core import from_json, to_json

from reference_manager.domain.commands import PageRequest, SerialKey
from reference_manager.domain.state_machine import Driver, Machine
from reference_manager.domain.states import JobStatus, Outcome, StageStatus, TaskStatus
from reference_manager.domain.transitions import JOB, STAGE, TASK
from reference_manager.engine.errors import require
from reference_manager.engine.records.pages import Entry, Listing, Page, read_page
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
_CREATION, _CLAIM, _END, _ABORT = range(4)
"""The places of status changes in the sort keys of a task's history: of its attempts, and before and after them."""
_BEFORE_ALL, _AFTER_ALL = 0, 2**63 - 1
"""The serials of its creation and its abort; the leases are between them."""


class History:
    """Lists attempts and status changes, in the order of time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def attempts(self, task_id: UUID) -> Listing[SerialKey]:
        """List the attempts at a task. Raises NotFoundError."""
        async with self._database.connection() as connection:
            require(await sql.task_exists(connection, id=task_id), "task")
        return Listing(SerialKey, partial(self._read_attempts, task_id))

    async def of_job(self, job_id: UUID) -> Listing[SerialKey]:
        """List the status changes of a job. Raises NotFoundError."""
        async with self._database.connection() as connection:
            require(await sql.job_exists(connection, id=job_id), "job")
        return Listing(SerialKey, partial(self._read_changes, JOB, JobStatus, job_id, None))

    async def of_stage(self, stage_id: UUID) -> Listing[SerialKey]:
        """List the status changes of a stage. Raises NotFoundError."""
        async with self._database.connection() as connection:
            job_id = require(await sql.stage_job(connection, stage_id=stage_id), "stage")
        return Listing(SerialKey, partial(self._read_changes, STAGE, StageStatus, job_id, stage_id))

    async def of_task(self, task_id: UUID) -> Listing[SerialKey]:
        """List the status changes of a task, derived from its attempts. Raises NotFoundError."""
        async with self._database.connection() as connection:
            require(await sql.task_exists(connection, id=task_id), "task")
        return Listing(SerialKey, partial(self._read_task_changes, task_id))

    async def _read_attempts(self, task_id: UUID, request: PageRequest[SerialKey]) -> Page[SerialKey]:
        async with self._database.connection() as connection:
            rows = sql.attempt_list(
                connection,
                task_id=task_id,
                descending=request.descending,
                after_lease=request.after.serial if request.after else None,
                after_number=request.after.place if request.after else None,
                limit=request.limit,
            )
            return await read_page(rows, SerialKey)

    async def _read_changes(
        self,
        machine: Machine[Status],
        status: type[Status],
        job_id: UUID,
        stage_id: UUID | None,
        request: PageRequest[SerialKey],
    ) -> Page[SerialKey]:
        async with self._database.connection() as connection:
            rows = sql.change_list(
                connection,
                job_id=job_id,
                stage_id=stage_id,
                descending=request.descending,
                after_id=request.after.serial if request.after else None,
                limit=request.limit,
            )
            page = await read_page(rows, SerialKey)
        return replace(page, entries=[_with_reason(machine, status, entry) for entry in page.entries])

    async def _read_task_changes(self, task_id: UUID, request: PageRequest[SerialKey]) -> Page[SerialKey]:
        async with self._database.connection() as connection:
            found = sql.task_history_list(
                connection,
                task_id=task_id,
                descending=request.descending,
                first_lease=request.after.serial if request.after else None,
                # Each attempt has at least one change, but those of the first may be on the previous page.
                limit=request.limit + 2,
            )
            rows = [row async for row in found]
        changes = list(_task_changes(rows, descending=request.descending))
        if request.after is not None:
            after = request.after
            changes = [pair for pair in changes if (pair[0] < after if request.descending else pair[0] > after)]
        page, rest = changes[: request.limit], changes[request.limit :]
        return Page([entry for _, entry in page], page[-1][0] if rest else None)


def _with_reason(machine: Machine[Status], status: type[Status], entry: Entry) -> Entry:
    """Add the author and the reason to a change, from the edges of the state machine."""
    change = from_json(entry.body)
    if change["source"] is None:
        return _entry(None, change["target"], change["at"], CLIENT, CREATED)
    edge = machine.edge(status(change["source"]), status(change["target"]))
    return _entry(change["source"], change["target"], change["at"], AUTHORS[edge.driver], edge.cause)


def _task_changes(rows: Sequence[Any], *, descending: bool) -> Iterator[tuple[SerialKey, Entry]]:
    """Derive status changes of a task, with their sort keys, from the rows of attempts.

    The changes before and after all attempts are included: sorted, they are on the first or on the last page.
    """
    if not rows:
        return  # the task was deleted meanwhile
    task = rows[0]
    created = SerialKey(_BEFORE_ALL, _CREATION), _entry(None, TaskStatus.PENDING, task["created_at"], CLIENT, CREATED)
    ends: list[tuple[SerialKey, Entry]] = []
    if (aborted := task["aborted_at"]) is not None:
        edge = TASK.edge(TaskStatus(task["status_before"]), TaskStatus.ABORTED)
        ends = [
            (
                SerialKey(_AFTER_ALL, _ABORT),
                _entry(task["status_before"], edge.target, aborted, AUTHORS[edge.driver], edge.cause),
            )
        ]
    yield from ends if descending else [created]
    for row in rows:
        if row["lease_id"] is not None:
            changes = list(_attempt_changes(row))
            yield from reversed(changes) if descending else changes
    yield from [created] if descending else ends


def _attempt_changes(attempt: Any) -> Iterator[tuple[SerialKey, Entry]]:  # noqa: ANN401 - rows are untyped
    worker, lease = attempt["worker_id"] or CLIENT, attempt["lease_id"]
    claimed = _entry(attempt["source"], TaskStatus.IN_PROGRESS, attempt["start_time"], worker, "claimed")
    yield SerialKey(lease, _CLAIM), claimed
    if attempt["target"] is not None:
        outcome = Outcome(attempt["outcome"])
        by = MANAGER if outcome in (Outcome.EXPIRED, Outcome.TIMED_OUT) else worker
        reason = OUTCOME_REASONS[outcome] + (f": {attempt['error_type']}" if attempt["error_type"] else "")
        ended = _entry(TaskStatus.IN_PROGRESS, attempt["target"], attempt["end_time"], by, reason)
        yield SerialKey(lease, _END), ended


def _entry(source: str | None, target: str, at: datetime | str, by: str, reason: str) -> Entry:
    if isinstance(at, datetime):
        at = f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z"
    return Entry(to_json({"from": source, "to": target, "at": at, "by": by, "reason": reason}).decode())
