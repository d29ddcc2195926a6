"""Stages: add, read, release."""

from functools import partial
from uuid import UUID

from reference_manager.domain.commands import JsonObject, NewStage, PageRequest, StageFilter, StageKey, TaskFilter
from reference_manager.domain.rules import initial_stage_status, release_stage
from reference_manager.domain.states import JobStatus, StageStatus
from reference_manager.domain.transitions import JOB
from reference_manager.engine.dispatch.notifications import Notifications
from reference_manager.engine.encoding import encode, encode_optional
from reference_manager.engine.errors import InFiniteStateError, require
from reference_manager.engine.records.pages import Entry, NestedList, Listing, Page, to_entry, read_page
from reference_manager.engine.records.tasks import Tasks
from reference_manager.store.pool import Database, sql


class Stages:
    """Everything that is asked of stages. What is read comes as JSON, as it goes over the wire."""

    def __init__(self, database: Database, notifications: Notifications) -> None:
        self._database = database
        self._notifications = notifications
        self._tasks = Tasks(database, notifications)

    async def add(self, job_id: UUID, stage: NewStage) -> str:
        """Add a stage behind the job's last one.

        Raises:
            NotFoundError: There is no such job.
            InFiniteStateError: The job has ended.
        """
        async with self._database.transaction() as connection:
            job = require(await sql.job_lock(connection, id=job_id), "job")
            status = JobStatus(job["status"])
            if status in JOB.final:
                raise InFiniteStateError("job", status)
            last = await sql.stage_last(connection, job_id=job_id)
            previous = StageStatus(last["status"]) if last else None
            await sql.job_add_stage(connection, id=job_id)
            return await sql.stage_insert(
                connection,
                job_id=job_id,
                position=last["position"] + 1 if last else 1,
                type=stage.type,
                status=initial_stage_status(previous, start_as_waiting=stage.start_as_waiting),
                data=encode(stage.data),
                user_metadata=encode(stage.user_metadata),
                weight=stage.weight,
                task_defaults=encode_optional(stage.task_defaults),
                traceparent=stage.trace.traceparent,
                tracestate=stage.trace.tracestate,
            )

    async def get(self, stage_id: UUID, *, with_tasks: bool, with_progress: bool) -> Entry:
        """One stage, or NotFoundError."""
        async with self._database.connection() as connection:
            row = await sql.stage_get(connection, id=stage_id, with_tasks=with_tasks, with_progress=with_progress)
        return to_entry(require(row, "stage"), self._tasks_of)

    async def summary(self, stage_id: UUID) -> str:
        """How many tasks of the stage have each status, or NotFoundError."""
        async with self._database.connection() as connection:
            return require(await sql.stage_get_summary(connection, id=stage_id), "stage")

    def list(self, wanted: StageFilter, *, with_tasks: bool) -> Listing[StageKey]:
        """The stages that match, by job and order."""
        return Listing(StageKey, partial(self._read, wanted, with_tasks=with_tasks))

    async def list_of_job(self, job_id: UUID, *, with_tasks: bool) -> Listing[StageKey]:
        """The job's stages by order, or NotFoundError if there is no such job."""
        async with self._database.connection() as connection:
            require(await sql.job_exists(connection, id=job_id), "job")
        return self.list(StageFilter(job_id=job_id), with_tasks=with_tasks)

    async def _read(self, wanted: StageFilter, part: PageRequest[StageKey], *, with_tasks: bool) -> Page[StageKey]:
        async with self._database.connection() as connection:
            rows = sql.stage_list(
                connection,
                job_id=wanted.job_id,
                type=wanted.type,
                status=wanted.status,
                until=part.until,
                with_tasks=with_tasks,
                after_job=part.after.job_id if part.after else None,
                after_position=part.after.position if part.after else None,
                wanted=part.limit,
            )
            return await read_page(rows, StageKey, self._tasks_of)

    def _tasks_of(self, stage_id: UUID) -> NestedList:
        return NestedList("tasks", self._tasks.list(TaskFilter(stage_id=stage_id)))

    async def set_metadata(self, stage_id: UUID, metadata: JsonObject) -> None:
        """Replace the user's metadata, or NotFoundError."""
        async with self._database.connection() as connection:
            require(await sql.stage_set_metadata(connection, id=stage_id, user_metadata=encode(metadata)), "stage")

    async def release(self, stage_id: UUID) -> None:
        """Let a stage that was created as waiting begin; nothing happens if it may begin already.

        Raises:
            NotFoundError: There is no such stage.
            PreviousStageNotCompletedError: It is not its turn.
            IllegalTransitionError: It is not WAITING.
        """
        async with self._database.transaction() as connection:
            require(await sql.stage_lock_job(connection, id=stage_id), "stage")
            state = require(await sql.stage_state(connection, id=stage_id), "stage")
            source = StageStatus(state["status"])
            previous = StageStatus(state["previous_status"]) if state["previous_status"] else None
            if release_stage(source, previous) is source:
                return
            await sql.stage_release(connection, id=stage_id)
        self._notifications.notify([state["type"]])
