"""Tasks: add, read, annotate. Claiming and settling them is the queue's."""

from functools import partial
from uuid import UUID

from reference_manager.domain.commands import (
    DEFAULT_MAX_ATTEMPTS,
    AgeKey,
    JsonObject,
    NewTasks,
    PageRequest,
    TaskFilter,
)
from reference_manager.domain.states import JobStatus, StageStatus
from reference_manager.domain.transitions import STAGE
from reference_manager.engine.dispatch.notifications import Notifications
from reference_manager.engine.encoding import encode, encode_optional
from reference_manager.engine.errors import InFiniteStateError, require
from reference_manager.engine.records.pages import Listing, Page, read_page
from reference_manager.store.pool import Database, Record, sql

CLAIMABLE = (StageStatus.PENDING, StageStatus.IN_PROGRESS)


class Tasks:
    """What is asked of tasks apart from working on them. What is read comes as JSON, as it goes over the wire."""

    def __init__(self, database: Database, notifications: Notifications) -> None:
        self._database = database
        self._notifications = notifications

    async def add(self, stage_id: UUID, tasks: NewTasks) -> str:
        """Add tasks to a stage, all or none, in their order; they come back.

        Raises:
            NotFoundError: There is no such stage.
            InFiniteStateError: The stage or its job has ended.
        """
        return (await self._add(stage_id, tasks, written=True))["body"]

    async def add_minimal(self, stage_id: UUID, tasks: NewTasks) -> int:
        """The same, but only their number comes back, which costs less."""
        return (await self._add(stage_id, tasks, written=False))["added"]

    async def _add(self, stage_id: UUID, tasks: NewTasks, *, written: bool) -> Record:
        async with self._database.connection() as connection:
            row = require(
                await sql.task_add(
                    connection,
                    stage_id=stage_id,
                    usual_attempts=DEFAULT_MAX_ATTEMPTS,
                    data=encode(tasks.data),
                    user_metadata=encode_optional(tasks.user_metadata),
                    options=encode_optional(tasks.options),
                    traceparent=tasks.trace.traceparent,
                    tracestate=tasks.trace.tracestate,
                    written=written,
                ),
                "stage",
            )
        status, job_status = StageStatus(row["status"]), JobStatus(row["job_status"])
        if row["added"] is None:
            raise InFiniteStateError("stage", status, of_job=None if status in STAGE.final else job_status)
        if status in CLAIMABLE:
            self._notifications.notify([row["type"]])
        return row

    async def get(self, task_id: UUID) -> str:
        """One task, or NotFoundError."""
        async with self._database.connection() as connection:
            return require(await sql.task_get(connection, id=task_id), "task")

    def list(self, wanted: TaskFilter) -> Listing[AgeKey]:
        """The tasks that match, oldest first; those of one stage as they were added."""
        return Listing(AgeKey, partial(self._read, wanted))

    async def list_of_stage(self, stage_id: UUID) -> Listing[AgeKey]:
        """The stage's tasks as they were added, or NotFoundError if there is no such stage."""
        async with self._database.connection() as connection:
            require(await sql.stage_exists(connection, id=stage_id), "stage")
        return self.list(TaskFilter(stage_id=stage_id))

    async def _read(self, wanted: TaskFilter, part: PageRequest[AgeKey]) -> Page[AgeKey]:
        async with self._database.connection() as connection:
            rows = sql.task_list(
                connection,
                stage_id=wanted.stage_id,
                stage_type=wanted.stage_type,
                status=wanted.status,
                from_date=wanted.from_date,
                end_date=wanted.end_date,
                until=part.until,
                after_time=part.after.created_at if part.after else None,
                after_seq=part.after.seq if part.after else None,
                wanted=part.limit,
            )
            return await read_page(rows, AgeKey)

    async def set_metadata(self, task_id: UUID, metadata: JsonObject) -> None:
        """Replace the user's metadata, or NotFoundError."""
        async with self._database.connection() as connection:
            require(await sql.task_set_metadata(connection, id=task_id, user_metadata=encode(metadata)), "task")
