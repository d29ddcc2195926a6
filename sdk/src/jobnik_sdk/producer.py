"""Creating work and steering it: jobs, their stages, the stages' tasks."""

from collections.abc import Iterable, Iterator
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from jobnik_sdk import metrics, trace
from jobnik_sdk.client import JobnikClient, read_many, read_one
from jobnik_sdk.definitions import (
    EMPTY,
    DataT,
    JobStatus,
    JobType,
    MetadataT,
    NewTask,
    Priority,
    StageStatus,
    StageType,
    TaskMetadataT,
    TaskT,
)
from jobnik_sdk.entities import Job, Stage, Summary, Task, job_of, stage_of, task_of
from jobnik_sdk.errors import InvalidPayloadError
from jobnik_sdk.payloads import to_object

AnyJob = Job[Any, Any] | UUID
"""A job, or its id. With the job itself, what is created in it belongs to its trace."""

AnyStage = Stage[Any, Any] | UUID
"""A stage, or its id. With the stage itself, what is created in it belongs to its trace."""


class Producer:
    """Creates jobs, stages and tasks, reads them and steers them.

    Each payload is checked against its model before anything is sent. A job belongs to the current trace
    (`jobnik_sdk.trace`), else to a new one; stages and tasks belong to the trace of the job or stage that is given, or
    where only its id is given to the current one.

    Every method raises `InvalidPayloadError` for a payload that does not fit, `UnreachableError` where no answer came,
    and a subclass of `AnswerError` where the manager refused.
    """

    def __init__(self, client: JobnikClient) -> None:
        self._client = client

    async def create_job(
        self,
        job_type: JobType[DataT, MetadataT],
        data: DataT = EMPTY,
        *,
        metadata: MetadataT = EMPTY,
        priority: Priority = Priority.MEDIUM,
        traceparent: str | None = None,
    ) -> Job[DataT, MetadataT]:
        """Create a job; it starts when it has a stage with tasks."""
        origin = trace.carried(_checked(traceparent)) if traceparent is not None else _origin()
        body = {
            "name": job_type.name,
            "data": to_object(data, job_type.data, "data"),
            "userMetadata": to_object(metadata, job_type.metadata, "metadata"),
            "priority": priority.value,
            **origin,
        }
        with metrics.operation("create_job", metrics.JOB_CREATE_DURATION):
            answer = await self._client.request("POST", "/v1/jobs", json=body, traceparent=origin["traceparent"])
        metrics.GUIDE_JOBS_CREATED.inc()
        return read_one(job_of(job_type), answer)

    async def create_stage(
        self,
        job: AnyJob,
        stage_type: StageType[Any, Any, Any, DataT, MetadataT],
        data: DataT = EMPTY,
        *,
        metadata: MetadataT = EMPTY,
        waiting: bool = False,
    ) -> Stage[DataT, MetadataT]:
        """Create the next stage of a job; with `waiting` it does not start before `start_stage` says so."""
        origin = _origin(job)
        body = {
            "type": stage_type.name,
            "data": to_object(data, stage_type.data, "data"),
            "userMetadata": to_object(metadata, stage_type.metadata, "metadata"),
            "startAsWaiting": waiting,
            **origin,
        }
        with metrics.operation("create_stage", metrics.STAGE_CREATE_DURATION):
            answer = await self._client.request(
                "POST", f"{_job_path(job)}/stage", json=body, traceparent=origin["traceparent"]
            )
        return read_one(stage_of(stage_type), answer)

    async def create_tasks(
        self,
        stage: AnyStage,
        stage_type: StageType[TaskT, Any, TaskMetadataT, Any, Any],
        tasks: Iterable[TaskT | NewTask[TaskT, TaskMetadataT]],
    ) -> list[Task[TaskT, TaskMetadataT]]:
        """Create tasks in a stage, all of them or none, in the order given; each is its data or a `NewTask`."""
        origin = _origin(stage)
        body = list(_task_bodies(tasks, stage_type, origin))
        with metrics.operation("create_tasks", metrics.TASK_CREATE_DURATION):
            answer = await self._client.request(
                "POST", f"{_stage_path(stage)}/tasks", json=body, traceparent=origin["traceparent"]
            )
        return read_many(task_of(stage_type), answer)

    async def get_job(self, job: AnyJob, job_type: JobType[DataT, MetadataT]) -> Job[DataT, MetadataT]:
        """Read a job."""
        return read_one(job_of(job_type), await self._client.request("GET", _job_path(job)))

    async def get_stage(
        self, stage: AnyStage, stage_type: StageType[Any, Any, Any, DataT, MetadataT]
    ) -> Stage[DataT, MetadataT]:
        """Read a stage."""
        return read_one(stage_of(stage_type), await self._client.request("GET", _stage_path(stage)))

    async def get_summary(self, stage: AnyStage) -> Summary:
        """Read how many tasks of a stage are in each status."""
        return read_one(Summary, await self._client.request("GET", f"{_stage_path(stage)}/summary"))

    async def get_tasks(
        self, stage: AnyStage, stage_type: StageType[TaskT, Any, TaskMetadataT, Any, Any]
    ) -> list[Task[TaskT, TaskMetadataT]]:
        """Read all tasks of a stage."""
        return read_many(task_of(stage_type), await self._client.request("GET", f"{_stage_path(stage)}/tasks"))

    async def start_stage(self, stage: AnyStage) -> None:
        """Let a stage that was created waiting start; all stages before it have to be completed."""
        await self._steer("start_stage", "PUT", f"{_stage_path(stage)}/status", {"status": StageStatus.PENDING})

    async def pause_job(self, job: AnyJob) -> None:
        """Hand out no more tasks of a job; those in progress may still be finished."""
        await self._steer("pause_job", "PUT", f"{_job_path(job)}/status", {"status": JobStatus.PAUSED})

    async def resume_job(self, job: AnyJob) -> None:
        """Hand out the tasks of a paused job again."""
        await self._steer("resume_job", "PUT", f"{_job_path(job)}/status", {"status": JobStatus.PENDING})

    async def abort_job(self, job: AnyJob) -> None:
        """End a job for good, with its stages and tasks that are not finished."""
        await self._steer("abort_job", "PUT", f"{_job_path(job)}/status", {"status": JobStatus.ABORTED})

    async def set_priority(self, job: AnyJob, priority: Priority) -> None:
        """Change how urgent a job is, which counts for its waiting tasks at once."""
        await self._steer("set_priority", "PATCH", f"{_job_path(job)}/priority", {"priority": priority.value})

    async def delete_job(self, job: AnyJob) -> None:
        """Remove a finished job with its stages and tasks."""
        await self._steer("delete_job", "DELETE", _job_path(job), None)

    async def _steer(self, name: str, method: str, path: str, body: dict[str, str] | None) -> None:
        with metrics.operation(name):
            await self._client.request(method, path, json=body)


def _task_bodies(
    tasks: Iterable[BaseModel | NewTask[Any, Any]],
    stage_type: StageType[Any, Any, Any, Any, Any],
    origin: dict[str, str],
) -> Iterator[dict[str, Any]]:
    for index, item in enumerate(tasks):
        where = f"tasks[{index}]"
        task = item if isinstance(item, NewTask) else NewTask(item)
        body: dict[str, Any] = {
            "data": to_object(task.data, stage_type.task, f"{where}.data"),
            "userMetadata": to_object(task.metadata, stage_type.task_metadata, f"{where}.metadata"),
            **origin,
        }
        if task.max_attempts is not None:
            if task.max_attempts < 1:
                raise InvalidPayloadError(f"{where}.max_attempts", "a task has at least 1 attempt.")
            body["maxAttempts"] = task.max_attempts
        yield body


def _origin(parent: AnyJob | AnyStage | None = None) -> dict[str, str]:
    """The trace that something new belongs to: its parent's, else the current one, else a new one."""
    if parent is not None and not isinstance(parent, UUID) and trace.is_valid(parent.traceparent):
        return trace.carried(parent.traceparent, parent.tracestate)
    return trace.carried(trace.current() or trace.generate())


def _checked(traceparent: str) -> str:
    if not trace.is_valid(traceparent):
        raise InvalidPayloadError("traceparent", f"{traceparent!r} is no W3C traceparent that names a trace.")
    return traceparent


def _job_path(job: AnyJob) -> str:
    return f"/v1/jobs/{job if isinstance(job, UUID) else job.id}"


def _stage_path(stage: AnyStage) -> str:
    return f"/v1/stages/{stage if isinstance(stage, UUID) else stage.id}"
