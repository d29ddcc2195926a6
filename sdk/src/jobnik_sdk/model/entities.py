"""What the manager tells: jobs, stages and tasks, typed by the definitions that they were asked for with."""

from datetime import timedelta
from functools import cache
from types import NoneType
from typing import Any, Generic
from uuid import UUID

from pydantic import AliasChoices, AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, field_validator
from pydantic.alias_generators import to_camel

from jobnik_sdk.model.definitions import (
    DataT,
    JobStatus,
    JobType,
    MetadataT,
    Priority,
    ResultT,
    StageStatus,
    StageType,
    TaskMetadataT,
    TaskStatus,
    TaskT,
)
from jobnik_sdk.observability.trace_context import NO_TRACE

# Managers of different ages spell these two differently, and the newest say both.
_CreatedAt = Field(validation_alias=AliasChoices("createdAt", "creationTime", "created_at"))
_UpdatedAt = Field(validation_alias=AliasChoices("updatedAt", "updateTime", "updated_at"))
_Metadata = Field(validation_alias=AliasChoices("userMetadata", "metadata"))


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, validate_by_name=True, validate_by_alias=True)


class _Entity(_Answer):
    id: UUID
    created_at: AwareDatetime = _CreatedAt
    updated_at: AwareDatetime = _UpdatedAt
    traceparent: str = NO_TRACE
    tracestate: str | None = None


class Progress(_Answer):
    """How far something is: `fraction` is 0 to 1, `eta` how long it will still take (None: nobody can say).

    A task's is what its worker said last; a job's counts its stages by their weights.
    """

    fraction: float
    message: str = ""
    eta: timedelta | None = Field(default=None, validation_alias=AliasChoices("etaSeconds", "eta"))


class Failure(_Answer):
    """Why an attempt failed, as its worker told it: the error's class, message and stack."""

    type: str
    message: str = ""
    stack: str = ""


class Job(_Entity, Generic[DataT, MetadataT]):
    """A job; `percentage` (0 to 100) is the share of its stages that are completed, rounded down.

    `progress` is finer, and there where a job is watched that has stages, if the manager can tell it.
    """

    name: str
    status: JobStatus
    priority: Priority
    percentage: int
    progress: Progress | None = None
    data: DataT
    metadata: MetadataT = _Metadata


class Summary(_Answer):
    """How many tasks of a stage are in each status; `total` is their sum."""

    created: int
    pending: int
    in_progress: int
    completed: int
    failed: int
    retried: int
    aborted: int = 0
    total: int


class Stage(_Entity, Generic[DataT, MetadataT]):
    """A stage; `order` counts from 1 within its job, `percentage` (0 to 100) is the share of completed tasks."""

    job_id: UUID
    type: str
    order: int
    status: StageStatus
    percentage: int
    summary: Summary
    start_time: AwareDatetime | None = None
    end_time: AwareDatetime | None = None
    data: DataT
    metadata: MetadataT = _Metadata


class CreatedJob(Job[DataT, MetadataT], Generic[DataT, MetadataT]):
    """A job as its creation is answered.

    `stages` are those that were created with it, by their order, with data and metadata as plain JSON. `is_new` is
    False where a unique job was there already: then it is that one, with the stages that it has.
    """

    is_new: bool = True
    stages: tuple[Stage[Any, Any], ...] = ()


class Task(_Entity, Generic[TaskT, TaskMetadataT, ResultT]):
    """A task; `attempts` counts those that failed so far, so it is 0 while the first one runs.

    What has not been: `result` before it is completed, `error` unless its last attempt failed, `progress` unless its
    worker told it, is None; so is a `result` that its stage type has no model for.
    """

    stage_id: UUID
    status: TaskStatus
    attempts: int
    max_attempts: int
    start_time: AwareDatetime | None = None
    end_time: AwareDatetime | None = None
    data: TaskT
    metadata: TaskMetadataT = _Metadata
    result: ResultT | None = None
    error: Failure | None = None
    progress: Progress | None = None

    @field_validator("result", mode="before")
    @classmethod
    def _as_described(cls, result: object) -> object:
        return None if cls.model_fields["result"].annotation is NoneType else result


class Attempt(_Answer):
    """One attempt at a task; `number` counts from 1.

    `outcome` is its worker's word (COMPLETED, FAILED, RELEASED, SNOOZED), the manager's (EXPIRED, TIMED_OUT), ABORTED
    with its job, or None while it runs. `worker_id` is None where the client has no leases.
    """

    number: int
    worker_id: str | None = None
    start_time: AwareDatetime
    end_time: AwareDatetime | None = None
    outcome: str | None = None
    error: Failure | None = None


class StageOfTask(_Answer):
    """The stage of a claimed task, as the manager tells it; `order` counts from 1 within its job."""

    id: UUID
    type: str
    order: int
    data: dict[str, JsonValue]
    metadata: dict[str, JsonValue] = _Metadata


class JobOfTask(_Answer):
    """The job of a claimed task, as the manager tells it."""

    id: UUID
    name: str
    priority: Priority
    data: dict[str, JsonValue]
    metadata: dict[str, JsonValue] = _Metadata


class ClaimedTask(Task[TaskT, TaskMetadataT], Generic[TaskT, TaskMetadataT]):
    """A task that this process works on, until it reports it completed or failed."""

    stage_type: str = ""

    @property
    def attempt(self) -> int:
        """Which attempt this is, counted from 1."""
        return self.attempts + 1


def job_of(job_type: JobType[DataT, MetadataT]) -> type[Job[DataT, MetadataT]]:
    """Return the model of jobs of this type."""
    made: type[Job[DataT, MetadataT]] = _made_of(Job, job_type.data, job_type.metadata)
    return made


def created_job_of(job_type: JobType[DataT, MetadataT]) -> type[CreatedJob[DataT, MetadataT]]:
    """Return the model of new jobs of this type."""
    made: type[CreatedJob[DataT, MetadataT]] = _made_of(CreatedJob, job_type.data, job_type.metadata)
    return made


def stage_of(stage_type: StageType[Any, Any, Any, DataT, MetadataT]) -> type[Stage[DataT, MetadataT]]:
    """Return the model of stages of this type."""
    made: type[Stage[DataT, MetadataT]] = _made_of(Stage, stage_type.data, stage_type.metadata)
    return made


def task_of(
    stage_type: StageType[TaskT, ResultT, TaskMetadataT, Any, Any],
) -> type[Task[TaskT, TaskMetadataT, ResultT]]:
    """Return the model of tasks in stages of this type."""
    result: Any = stage_type.result or NoneType
    made: type[Task[TaskT, TaskMetadataT, ResultT]] = _made_of(Task, stage_type.task, stage_type.task_metadata, result)
    return made


def claimed_task_of(
    stage_type: StageType[TaskT, Any, TaskMetadataT, Any, Any],
) -> type[ClaimedTask[TaskT, TaskMetadataT]]:
    """Return the model of claimed tasks in stages of this type."""
    made: type[ClaimedTask[TaskT, TaskMetadataT]] = _made_of(ClaimedTask, stage_type.task, stage_type.task_metadata)
    return made


@cache
def _made_of(generic: type[BaseModel], *models: type[Any]) -> Any:  # noqa: ANN401 each caller says which
    # Kept here, since pydantic forgets a model that nobody holds, and making one takes longer than a request.
    return generic.__class_getitem__(models)
