"""Jobs: create, read, change and delete them."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

from reference_manager.domain.commands import (
    DEFAULT_MAX_ATTEMPTS,
    AgeKey,
    JobFilter,
    NewJob,
    NewStage,
    NewTasks,
    NumberedRequest,
    PageRequest,
    StageFilter,
)
from reference_manager.domain.payloads import JsonText
from reference_manager.domain.rules import initial_stage_statuses
from reference_manager.domain.state_machine import Consequence, Driver
from reference_manager.domain.states import JobStatus, Priority
from reference_manager.domain.transitions import JOB
from reference_manager.engine.dispatch.handover import Handover
from reference_manager.engine.errors import NotFiniteError, require, unlocked
from reference_manager.engine.records.idempotency import job_key, unless_reused
from reference_manager.engine.records.pages import (
    Entry,
    NestedList,
    NumberedListing,
    NumberedPage,
    Page,
    read_numbered_page,
    read_page,
    to_entry,
)
from reference_manager.engine.records.stages import Stages
from reference_manager.store.lock_waits import NO_WAIT
from reference_manager.store.pool import Connection, Database, sql

# The consequences of transitions that clients request. The consequences of all others are applied by SQL routines.
_CONSEQUENCES: dict[Consequence, Callable[[Connection, UUID], Awaitable[Any]]] = {
    Consequence.CLOSE_QUEUES: lambda connection, job_id: sql.stages_set_open(connection, job_id=job_id, job_open=False),
    Consequence.OPEN_QUEUES: lambda connection, job_id: sql.stages_set_open(connection, job_id=job_id, job_open=True),
    Consequence.ABORT_TASKS: lambda connection, job_id: sql.tasks_abort(connection, job_id=job_id),
    Consequence.ABORT_STAGES: lambda connection, job_id: sql.stages_abort(connection, job_id=job_id),
}


class Created(NamedTuple):
    """The result of a request to create a job."""

    body: str
    """The new job as JSON, or the job that holds its unique key."""
    is_new: bool


class Jobs:
    """The jobs in the database. Entities are returned in their wire format."""

    def __init__(self, database: Database, handover: Handover) -> None:
        self._database = database
        self._handover = handover
        self._stages = Stages(database, handover)

    async def create(self, job: NewJob, key: str | None = None) -> Created:
        """Create a job with its stages and tasks, unless another job holds its unique key.

        Args:
            job: The job.
            key: The idempotency key of the request. If an earlier request with this key created a job, nothing is
                created, and that job is returned as it was then. None: the request has none.

        Raises:
            KeyReusedError: Another request used the idempotency key.
            NotFoundError: The job that the earlier request created was deleted.
        """
        fields: dict[str, object] = {
            "name": job.name,
            "priority": job.priority,
            "data": job.data,
            "user_metadata": job.user_metadata,
            "traceparent": job.trace.traceparent,
            "tracestate": job.trace.tracestate,
        }
        if job.stages is None and job.unique is None and key is None:
            async with self._database.connection() as connection:
                return Created(await sql.job_insert(connection, **fields), is_new=True)
        fields |= {
            "unique_key": job.unique and job.unique.key,
            "unique_for": job.unique and job.unique.within,
            **_tree_parameters(job.stages),
        }
        if key is not None:
            fields |= job_key(key, job)
        if job.unique is not None:
            return await self._database.lock_waits.run(("unique key", job.unique.key), partial(self._create, fields))
        if key is not None:
            return await self._database.lock_waits.run(("idempotency key", key), partial(self._create, fields))
        return await self._create(fields, NO_WAIT)

    async def _create(self, fields: Mapping[str, Any], wait: timedelta) -> Created:
        async with self._handover.transaction() as transaction:
            if "key" in fields:
                row = unless_reused(
                    require(await sql.job_create_once(transaction.connection, **fields, wait=wait), "job")
                )
            else:
                row = await sql.job_create(transaction.connection, **fields, wait=wait)
            await transaction.announce(row["woken"])
        return Created(row["body"], is_new=row["created"])

    async def get(self, job_id: UUID, *, with_stages: bool, with_progress: bool) -> Entry:
        """Return a job. Raises NotFoundError."""
        async with self._database.connection() as connection:
            row = await sql.job_get(connection, id=job_id, with_stages=with_stages, with_progress=with_progress)
        return to_entry(require(row, "job"), self._stages_of)

    def list(self, wanted: JobFilter, *, with_stages: bool) -> NumberedListing[AgeKey]:
        """List the matching jobs, by age."""
        filters = {
            "name": wanted.name,
            "priority": wanted.priority,
            "statuses": wanted.statuses,
            "metadata": wanted.metadata,
            "from_date": wanted.from_date,
            "end_date": wanted.end_date,
            "with_stages": with_stages,
        }
        return NumberedListing(AgeKey, partial(self._read, filters), partial(self._read_numbered, filters))

    async def _read(self, filters: Mapping[str, Any], request: PageRequest[AgeKey]) -> Page[AgeKey]:
        async with self._database.connection() as connection:
            rows = sql.job_list(
                connection,
                **filters,
                until=request.until,
                descending=request.descending,
                after_time=request.after.created_at if request.after else None,
                after_seq=request.after.seq if request.after else None,
                limit=request.limit,
            )
            return await read_page(rows, AgeKey, self._stages_of)

    async def _read_numbered(self, filters: Mapping[str, Any], request: NumberedRequest) -> NumberedPage:
        async with self._database.connection() as connection:
            rows = sql.job_number(
                connection,
                **filters,
                descending=request.descending,
                skipped=request.skipped,
                limit=request.limit,
            )
            get = partial(self.get, with_stages=filters["with_stages"], with_progress=False)
            return await read_numbered_page(rows, get, self._stages_of)

    def _stages_of(self, job_id: UUID) -> NestedList:
        return NestedList("stages", self._stages.list(StageFilter(job_id=job_id), with_tasks=False))

    async def set_metadata(self, job_id: UUID, metadata: JsonText) -> None:
        """Replace the user metadata of a job. Raises NotFoundError."""
        attempt = partial(self._set_metadata, job_id, metadata)
        await self._database.lock_waits.run(("job's row", job_id), attempt)

    async def _set_metadata(self, job_id: UUID, metadata: str, wait: timedelta) -> None:
        async with self._database.connection() as connection:
            require(await sql.job_set_metadata(connection, id=job_id, user_metadata=metadata, wait=wait), "job")

    async def set_priority(self, job_id: UUID, priority: Priority) -> bool:
        """Change the priority of a job and its waiting tasks. Return whether it changed. Raises NotFoundError."""
        return await self._database.lock_waits.run(job_id, partial(self._set_priority, job_id, priority))

    async def _set_priority(self, job_id: UUID, priority: Priority, wait: timedelta) -> bool:
        async with self._database.transaction() as connection:
            job = unlocked(await sql.job_lock(connection, id=job_id, wait=wait), "job")
            if job["priority"] == priority:
                return False
            await sql.job_set_priority(connection, id=job_id, priority=priority)
            await sql.stages_set_priority(connection, job_id=job_id, priority=priority)
        return True

    async def set_status(self, job_id: UUID, target: JobStatus) -> None:
        """Pause (PAUSED), resume (PENDING) or abort (ABORTED) a job.

        Raises:
            NotFoundError: There is no such job.
            IllegalTransitionError: The current status of the job does not permit this.
        """
        await self._database.lock_waits.run(job_id, partial(self._set_status, job_id, target))

    async def _set_status(self, job_id: UUID, target: JobStatus, wait: timedelta) -> None:
        async with self._handover.transaction(several=True) as transaction:
            connection = transaction.connection
            job = unlocked(await sql.job_lock(connection, id=job_id, wait=wait), "job")
            edge = JOB.move(JobStatus(job["status"]), target, Driver.CLIENT)
            await sql.job_set_status(connection, id=job_id, status=edge.target)
            for consequence in edge.follows:
                await _CONSEQUENCES[consequence](connection, job_id)
            await transaction.announce([row["type"] async for row in sql.stages_claimable(connection, job_id=job_id)])

    async def delete(self, job_id: UUID) -> None:
        """Delete a job that has ended, with its stages, tasks and history. The rows of its tasks are deleted later.

        Raises:
            NotFoundError: There is no such job.
            NotFiniteError: The job has not ended.
        """
        await self._database.lock_waits.run(job_id, partial(self._delete, job_id))

    async def _delete(self, job_id: UUID, wait: timedelta) -> None:
        async with self._database.transaction(extended=True) as connection:
            job = unlocked(await sql.job_lock(connection, id=job_id, wait=wait), "job")
            status = JobStatus(job["status"])
            if status not in JOB.final:
                raise NotFiniteError(status)
            await sql.job_delete(connection, id=job_id)


def _tree_parameters(tree: Sequence[tuple[NewStage, NewTasks]] | None) -> Mapping[str, object]:
    """Return the stages of a new job, with their tasks, as parameters of ``job_create``: lists by stage."""
    stages = [stage for stage, _ in tree or ()]
    tasks = [tasks for _, tasks in tree or ()]
    return {
        "types": None if tree is None else [stage.type for stage in stages],
        "statuses": initial_stage_statuses([stage.start_as_waiting for stage in stages]),
        "datas": [stage.data for stage in stages],
        "metadatas": [stage.user_metadata for stage in stages],
        "weights": [stage.weight for stage in stages],
        "defaults": [stage.task_defaults for stage in stages],
        "traceparents": [stage.trace.traceparent for stage in stages],
        "tracestates": [stage.trace.tracestate for stage in stages],
        "default_max_attempts": DEFAULT_MAX_ATTEMPTS,
        "task_datas": [new.data for new in tasks],
        "task_metadatas": [new.user_metadata for new in tasks],
        "task_options": [new.options for new in tasks],
    }
