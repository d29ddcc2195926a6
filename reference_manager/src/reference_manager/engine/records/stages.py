"""Stages: add, read, annotate and release them."""

from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

from reference_manager.domain.commands import (
    NewStage,
    NumberedRequest,
    PageRequest,
    StageFilter,
    StageKey,
    TaskFilter,
)
from reference_manager.domain.payloads import JsonText
from reference_manager.domain.rules import initial_stage_status, release_stage
from reference_manager.domain.states import JobStatus, StageStatus
from reference_manager.domain.transitions import JOB
from reference_manager.engine.dispatch.handover import Handover
from reference_manager.engine.errors import InFiniteStateError, require, unlocked
from reference_manager.engine.records.idempotency import stage_key, unless_reused
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
from reference_manager.engine.records.tasks import Tasks
from reference_manager.store.pool import Database, sql


class Stages:
    """The stages in the database. Entities are returned in their wire format."""

    def __init__(self, database: Database, handover: Handover) -> None:
        self._database = database
        self._handover = handover
        self._tasks = Tasks(database, handover)

    async def add(self, job_id: UUID, stage: NewStage, key: str | None = None) -> str:
        """Append a stage to a job.

        Args:
            job_id: The job.
            stage: The stage.
            key: The idempotency key of the request; see ``Jobs.create``.

        Returns:
            The stage as JSON.

        Raises:
            NotFoundError: There is no such job.
            InFiniteStateError: The job has ended.
            KeyReusedError: Another request used the idempotency key.
        """
        return await self._database.lock_waits.run(job_id, partial(self._add, job_id, stage, key))

    async def _add(self, job_id: UUID, stage: NewStage, key: str | None, wait: timedelta) -> str:
        async with self._database.transaction() as connection:
            stage_id = None
            if key is not None:
                taken = await sql.stage_create_once(connection, **stage_key(key, job_id, stage), wait=wait)
                if not unless_reused(taken)["created"]:
                    return require(taken["body"], "job")
                stage_id = taken["id"]
            job = unlocked(await sql.job_lock(connection, id=job_id, wait=wait), "job")
            status = JobStatus(job["status"])
            if status in JOB.final:
                raise InFiniteStateError("job", status)
            last = await sql.stage_last(connection, job_id=job_id)
            previous = StageStatus(last["status"]) if last else None
            await sql.job_add_stage(connection, id=job_id)
            return await sql.stage_insert(
                connection,
                id=stage_id,
                job_id=job_id,
                position=last["position"] + 1 if last else 1,
                type=stage.type,
                status=initial_stage_status(previous, start_as_waiting=stage.start_as_waiting),
                data=stage.data,
                user_metadata=stage.user_metadata,
                weight=stage.weight,
                task_defaults=stage.task_defaults,
                traceparent=stage.trace.traceparent,
                tracestate=stage.trace.tracestate,
            )

    async def get(self, stage_id: UUID, *, with_tasks: bool, with_progress: bool) -> Entry:
        """Return a stage. Raises NotFoundError."""
        async with self._database.connection() as connection:
            row = await sql.stage_get(connection, id=stage_id, with_tasks=with_tasks, with_progress=with_progress)
        return to_entry(require(row, "stage"), self._tasks_of)

    async def summary(self, stage_id: UUID) -> str:
        """Count the tasks of a stage by status, as JSON. Raises NotFoundError."""
        async with self._database.connection() as connection:
            return require(await sql.stage_get_summary(connection, id=stage_id), "stage")

    def list(self, wanted: StageFilter, *, with_tasks: bool) -> NumberedListing[StageKey]:
        """List the matching stages, by job and position."""
        filters = {
            "job_id": wanted.job_id,
            "type": wanted.type,
            "statuses": wanted.statuses,
            "metadata": wanted.metadata,
            "with_tasks": with_tasks,
        }
        return NumberedListing(StageKey, partial(self._read, filters), partial(self._read_numbered, filters))

    async def list_of_job(self, job_id: UUID, *, with_tasks: bool) -> NumberedListing[StageKey]:
        """List the stages of a job by position. Raises NotFoundError."""
        async with self._database.connection() as connection:
            require(await sql.job_exists(connection, id=job_id), "job")
        return self.list(StageFilter(job_id=job_id), with_tasks=with_tasks)

    async def _read(self, filters: Mapping[str, Any], request: PageRequest[StageKey]) -> Page[StageKey]:
        async with self._database.connection() as connection:
            rows = sql.stage_list(
                connection,
                **filters,
                until=request.until,
                descending=request.descending,
                after_job=request.after.job_id if request.after else None,
                after_position=request.after.position if request.after else None,
                limit=request.limit,
            )
            return await read_page(rows, StageKey, self._tasks_of)

    async def _read_numbered(self, filters: Mapping[str, Any], request: NumberedRequest) -> NumberedPage:
        async with self._database.connection() as connection:
            rows = sql.stage_number(
                connection,
                **filters,
                descending=request.descending,
                skipped=request.skipped,
                limit=request.limit,
            )
            get = partial(self.get, with_tasks=filters["with_tasks"], with_progress=False)
            return await read_numbered_page(rows, get, self._tasks_of)

    def _tasks_of(self, stage_id: UUID) -> NestedList:
        return NestedList("tasks", self._tasks.list(TaskFilter(stage_id=stage_id)))

    async def set_metadata(self, stage_id: UUID, metadata: JsonText) -> None:
        """Replace the user metadata of a stage. Raises NotFoundError."""
        attempt = partial(self._set_metadata, stage_id, metadata)
        await self._database.lock_waits.run(("stage's row", stage_id), attempt)

    async def _set_metadata(self, stage_id: UUID, metadata: str, wait: timedelta) -> None:
        async with self._database.connection() as connection:
            require(await sql.stage_set_metadata(connection, id=stage_id, user_metadata=metadata, wait=wait), "stage")

    async def release(self, stage_id: UUID) -> None:
        """Release a WAITING stage. Releasing a PENDING stage does nothing.

        Raises:
            NotFoundError: There is no such stage.
            PreviousStageNotCompletedError: The previous stage is not COMPLETED.
            IllegalTransitionError: The stage is neither WAITING nor PENDING.
        """
        await self._database.lock_waits.run(stage_id, partial(self._release, stage_id))

    async def _release(self, stage_id: UUID, wait: timedelta) -> None:
        async with self._handover.transaction(several=True) as transaction:
            connection = transaction.connection
            unlocked(await sql.stage_lock_job(connection, id=stage_id, wait=wait), "stage")
            state = require(await sql.stage_state(connection, id=stage_id), "stage")
            source = StageStatus(state["status"])
            previous = StageStatus(state["previous_status"]) if state["previous_status"] else None
            if release_stage(source, previous) is source:
                return
            await sql.stage_release(connection, id=stage_id)
            await transaction.announce([state["type"]])
