"""Jobs: create, read, change, delete."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

from reference_manager.domain.commands import (
    DEFAULT_MAX_ATTEMPTS,
    AgeKey,
    JobFilter,
    JsonObject,
    NewJob,
    NewStage,
    NewTasks,
    PageRequest,
    StageFilter,
)
from reference_manager.domain.rules import initial_stage_statuses
from reference_manager.domain.state_machine import Consequence, Driver
from reference_manager.domain.states import JobStatus, Priority
from reference_manager.domain.transitions import JOB
from reference_manager.engine.dispatch.notifications import Notifications
from reference_manager.engine.encoding import encode, encode_optional
from reference_manager.engine.errors import NotFiniteError, require
from reference_manager.engine.records.pages import Entry, NestedList, Listing, Page, to_entry, read_page
from reference_manager.engine.records.stages import Stages
from reference_manager.store.pool import Connection, Database, sql

# What a client's move of a job entails; what the manager's own moves entail is done by the routines that make them.
_FOLLOW: dict[Consequence, Callable[[Connection, UUID], Awaitable[Any]]] = {
    Consequence.CLOSE_QUEUES: lambda connection, job_id: sql.stages_set_open(connection, job_id=job_id, job_open=False),
    Consequence.OPEN_QUEUES: lambda connection, job_id: sql.stages_set_open(connection, job_id=job_id, job_open=True),
    Consequence.ABORT_TASKS: lambda connection, job_id: sql.tasks_abort(connection, job_id=job_id),
    Consequence.ABORT_STAGES: lambda connection, job_id: sql.stages_abort(connection, job_id=job_id),
}


class Created(NamedTuple):
    """What became of a job that was to be created."""

    body: str
    """The job as JSON, or the one that has its key."""
    is_new: bool


class Jobs:
    """Everything that is asked of jobs. What is read comes as JSON, as it goes over the wire."""

    def __init__(self, database: Database, notifications: Notifications) -> None:
        self._database = database
        self._notifications = notifications
        self._stages = Stages(database, notifications)

    async def create(self, job: NewJob) -> Created:
        """Create a job with all that it comes with, unless another one has its key."""
        fields = {
            "name": job.name,
            "priority": job.priority,
            "data": encode(job.data),
            "user_metadata": encode(job.user_metadata),
            "traceparent": job.trace.traceparent,
            "tracestate": job.trace.tracestate,
        }
        async with self._database.connection() as connection:
            if job.stages is None and job.unique is None:
                return Created(await sql.job_insert(connection, **fields), is_new=True)
            row = await sql.job_create(
                connection,
                **fields,
                unique_key=job.unique and job.unique.key,
                unique_for=job.unique and job.unique.within,
                **_tree(job.stages),
            )
        self._notifications.notify(row["woken"])
        return Created(row["body"], is_new=row["created"])

    async def get(self, job_id: UUID, *, with_stages: bool, with_progress: bool) -> Entry:
        """One job, or NotFoundError."""
        async with self._database.connection() as connection:
            row = await sql.job_get(connection, id=job_id, with_stages=with_stages, with_progress=with_progress)
        return to_entry(require(row, "job"), self._stages_of)

    def list(self, wanted: JobFilter, *, with_stages: bool) -> Listing[AgeKey]:
        """The jobs that match, oldest first."""
        return Listing(AgeKey, partial(self._read, wanted, with_stages=with_stages))

    async def _read(self, wanted: JobFilter, part: PageRequest[AgeKey], *, with_stages: bool) -> Page[AgeKey]:
        async with self._database.connection() as connection:
            rows = sql.job_list(
                connection,
                name=wanted.name,
                priority=wanted.priority,
                from_date=wanted.from_date,
                end_date=wanted.end_date,
                until=part.until,
                with_stages=with_stages,
                after_time=part.after.created_at if part.after else None,
                after_seq=part.after.seq if part.after else None,
                wanted=part.limit,
            )
            return await read_page(rows, AgeKey, self._stages_of)

    def _stages_of(self, job_id: UUID) -> NestedList:
        return NestedList("stages", self._stages.list(StageFilter(job_id=job_id), with_tasks=False))

    async def set_metadata(self, job_id: UUID, metadata: JsonObject) -> None:
        """Replace the user's metadata, or NotFoundError."""
        async with self._database.connection() as connection:
            require(await sql.job_set_metadata(connection, id=job_id, user_metadata=encode(metadata)), "job")

    async def set_priority(self, job_id: UUID, priority: Priority) -> bool:
        """Change the priority of the job and its waiting tasks; whether it was another before. Or NotFoundError."""
        async with self._database.transaction() as connection:
            job = require(await sql.job_lock(connection, id=job_id), "job")
            if job["priority"] == priority:
                return False
            await sql.job_set_priority(connection, id=job_id, priority=priority)
            await sql.stages_set_priority(connection, job_id=job_id, priority=priority)
        return True

    async def set_status(self, job_id: UUID, target: JobStatus) -> None:
        """Pause, resume or abort.

        Raises:
            NotFoundError: There is no such job.
            IllegalTransitionError: A client may not move the job there from where it stands.
        """
        async with self._database.transaction() as connection:
            job = require(await sql.job_lock(connection, id=job_id), "job")
            edge = JOB.move(JobStatus(job["status"]), target, Driver.CLIENT)
            await sql.job_set_status(connection, id=job_id, status=edge.target)
            for consequence in edge.follows:
                await _FOLLOW[consequence](connection, job_id)
            woken = [row["type"] async for row in sql.stages_claimable(connection, job_id=job_id)]
        self._notifications.notify(woken)

    async def delete(self, job_id: UUID) -> None:
        """Delete a job that has ended, with all that belongs to it.

        Raises:
            NotFoundError: There is no such job.
            NotFiniteError: It has not ended.
        """
        async with self._database.transaction() as connection:
            job = require(await sql.job_lock(connection, id=job_id), "job")
            status = JobStatus(job["status"])
            if status not in JOB.final:
                raise NotFiniteError(status)
            await sql.job_delete(connection, id=job_id)


def _tree(tree: Sequence[tuple[NewStage, NewTasks]] | None) -> Mapping[str, object]:
    """What the stages of a new job and their tasks say, each in a list that has an item for each stage."""
    stages = [stage for stage, _ in tree or ()]
    tasks = [tasks for _, tasks in tree or ()]
    return {
        "types": None if tree is None else [stage.type for stage in stages],
        "statuses": initial_stage_statuses([stage.start_as_waiting for stage in stages]),
        "datas": [encode(stage.data) for stage in stages],
        "metadatas": [encode(stage.user_metadata) for stage in stages],
        "weights": [stage.weight for stage in stages],
        "defaults": [encode_optional(stage.task_defaults) for stage in stages],
        "traceparents": [stage.trace.traceparent for stage in stages],
        "tracestates": [stage.trace.tracestate for stage in stages],
        "usual_attempts": DEFAULT_MAX_ATTEMPTS,
        "task_datas": [encode(one.data) for one in tasks],
        "task_metadatas": [encode_optional(one.user_metadata) for one in tasks],
        "task_options": [encode_optional(one.options) for one in tasks],
    }
