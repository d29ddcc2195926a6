"""Tasks: add, read and annotate them. The queue claims and settles them."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

from reference_manager.domain.commands import (
    DEFAULT_MAX_ATTEMPTS,
    AgeKey,
    NewTasks,
    NumberedRequest,
    PageRequest,
    TaskFilter,
)
from reference_manager.domain.payloads import JsonText
from reference_manager.domain.states import JobStatus, StageStatus
from reference_manager.domain.transitions import STAGE
from reference_manager.engine.dispatch.claims import BATCH_SIZE, NO_CLAIM
from reference_manager.engine.dispatch.handover import Handover
from reference_manager.engine.errors import InFiniteStateError, require, unlocked
from reference_manager.engine.records.idempotency import tasks_key, unless_reused
from reference_manager.engine.records.pages import (
    Entry,
    NumberedListing,
    NumberedPage,
    Page,
    read_numbered_page,
    read_page,
)
from reference_manager.store.lock_waits import NO_WAIT
from reference_manager.store.pool import Database, Record, sql

CLAIMABLE = (StageStatus.PENDING, StageStatus.IN_PROGRESS)
SMALL = 64 * 1024
"""Characters. A claim does not wait for a creation with more data than this."""


class _Addition(NamedTuple):
    """A statement that adds tasks to a stage."""

    stage_id: UUID
    tasks: int
    """The number of tasks."""
    is_small: bool
    """Whether waiting claims may be reserved while the statement runs."""
    statement: str
    arguments: Sequence[object]
    """Its arguments, without the time that it may wait for locks, and the claims."""


class Tasks:
    """The tasks in the database. Entities are returned in their wire format."""

    def __init__(self, database: Database, handover: Handover) -> None:
        self._database = database
        self._handover = handover

    async def add(self, stage_id: UUID, tasks: NewTasks, key: str | None = None) -> str:
        """Add tasks to a stage, in order: all of them or none.

        Args:
            stage_id: The stage.
            tasks: The tasks.
            key: The idempotency key of the request; see ``Jobs.create``.

        Returns:
            The tasks as a JSON list.

        Raises:
            NotFoundError: There is no such stage.
            InFiniteStateError: The stage or its job has ended.
            KeyReusedError: Another request used the idempotency key.
        """
        return (await self._add(stage_id, tasks, key, with_body=True))["body"]

    async def add_minimal(self, stage_id: UUID, tasks: NewTasks, key: str | None = None) -> int:
        """Add tasks like ``add``, but return only their number, which is cheaper."""
        return (await self._add(stage_id, tasks, key, with_body=False))["added"]

    async def _add(self, stage_id: UUID, tasks: NewTasks, key: str | None, *, with_body: bool) -> Record:
        addition = _Addition(
            stage_id,
            tasks.number,
            tasks.number <= BATCH_SIZE and len(tasks.data) <= SMALL,
            sql.task_add.sql if key is None else sql.task_add_once.sql,
            (
                *(() if key is None else tasks_key(key, stage_id, tasks).values()),
                stage_id,
                DEFAULT_MAX_ATTEMPTS,
                tasks.data,
                tasks.user_metadata,
                tasks.options,
                tasks.trace.traceparent,
                tasks.trace.tracestate,
                with_body,
            ),
        )
        return await self._database.lock_waits.run(stage_id, partial(self._insert, addition))

    async def _insert(self, addition: _Addition, wait: timedelta) -> Record:
        stage_type = self._handover.stage_type(addition.stage_id)
        async with self._database.connection() as connection:
            if stage_type is not None and addition.is_small:
                rows = await self._handover.execute(
                    connection, addition.statement, (*addition.arguments, NO_WAIT), stage_type, addition.tasks
                )
                if rows is not None and not (rows and rows[0]["locked"]):
                    return _added(rows)
            async with self._handover.on(connection) as transaction:
                row = _added(await connection.fetch(addition.statement, *addition.arguments, wait, *NO_CLAIM))
                if row.get("created", True) and row["status"] in CLAIMABLE:
                    await transaction.announce([row["type"]], addition.tasks)
            self._handover.remember(addition.stage_id, row["type"])
        return row

    async def get(self, task_id: UUID) -> str:
        """Return a task. Raises NotFoundError."""
        async with self._database.connection() as connection:
            return require(await sql.task_get(connection, id=task_id), "task")

    def list(self, wanted: TaskFilter) -> NumberedListing[AgeKey]:
        """List the matching tasks, by age. The tasks of one stage are in the order in which they were added."""
        filters = {
            "stage_id": wanted.stage_id,
            "stage_type": wanted.stage_type,
            "statuses": wanted.statuses,
            "metadata": wanted.metadata,
            "from_date": wanted.from_date,
            "end_date": wanted.end_date,
        }
        return NumberedListing(AgeKey, partial(self._read, filters), partial(self._read_numbered, filters))

    async def list_of_stage(self, stage_id: UUID) -> NumberedListing[AgeKey]:
        """List the tasks of a stage in the order in which they were added. Raises NotFoundError."""
        async with self._database.connection() as connection:
            require(await sql.stage_exists(connection, id=stage_id), "stage")
        return self.list(TaskFilter(stage_id=stage_id))

    async def _read(self, filters: Mapping[str, Any], request: PageRequest[AgeKey]) -> Page[AgeKey]:
        async with self._database.connection() as connection:
            rows = sql.task_list(
                connection,
                **filters,
                until=request.until,
                descending=request.descending,
                after_time=request.after.created_at if request.after else None,
                after_seq=request.after.seq if request.after else None,
                limit=request.limit,
            )
            return await read_page(rows, AgeKey)

    async def _read_numbered(self, filters: Mapping[str, Any], request: NumberedRequest) -> NumberedPage:
        async with self._database.connection() as connection:
            rows = sql.task_number(
                connection,
                **filters,
                descending=request.descending,
                skipped=request.skipped,
                limit=request.limit,
            )
            return await read_numbered_page(rows, self._get)

    async def _get(self, task_id: UUID) -> Entry:
        return Entry(await self.get(task_id))

    async def set_metadata(self, task_id: UUID, metadata: JsonText) -> None:
        """Replace the user metadata of a task. Raises NotFoundError."""
        attempt = partial(self._set_metadata, task_id, metadata)
        await self._database.lock_waits.run(("task's row", task_id), attempt)

    async def _set_metadata(self, task_id: UUID, metadata: str, wait: timedelta) -> None:
        async with self._database.connection() as connection:
            require(await sql.task_set_metadata(connection, id=task_id, user_metadata=metadata, wait=wait), "task")


def _added(rows: Sequence[Record]) -> Record:
    """Return the first row of a statement that adds tasks. Raise if it has not added any, now or earlier."""
    row = unlocked(rows[0] if rows else None, "stage")
    if "reused" in row:
        unless_reused(row)
    if row["added"] is None:
        status = StageStatus(row["status"])
        raise InFiniteStateError(
            "stage", status, of_job=None if status in STAGE.final else JobStatus(row["job_status"])
        )
    return row
