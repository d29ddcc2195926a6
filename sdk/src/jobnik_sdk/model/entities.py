"""Entities in the responses of the manager, typed by their job type or stage type."""

from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from types import NoneType
from typing import Annotated, Any, ClassVar, Final, Generic
from uuid import UUID

from pydantic import (
    AliasChoices,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    JsonValue,
    field_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, core_schema

from jobnik_sdk.model.definitions import (
    AnyStageType,
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


@dataclass(frozen=True, slots=True)
class _Optional:
    """Marks a field that is not essential: if its value is null or invalid, the field has the default instead."""

    default: object

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_default_schema(handler(source), default=self.default, on_error="default")


class _Open:
    """Marks an enum whose unknown values are accepted, because a newer manager may have more of them."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401 an enum
        unknown = core_schema.no_info_after_validator_function(source.read, core_schema.str_schema())
        return core_schema.union_schema(
            [handler(source), unknown],
            mode="left_to_right",
            custom_error_type="text",
            custom_error_message="Input should be a valid string",
            serialization=core_schema.to_string_ser_schema(),
        )


def _empty_if_null(value: object) -> object:
    return {} if value is None else value


_OPEN: Final = _Open()
_NULL_AS_EMPTY: Final = BeforeValidator(_empty_if_null)
_NULL: Final = _Optional(None)
_ZERO: Final = _Optional(0)

# Managers of different versions name these fields differently; the newest send both names. The stages of the original
# manager have no times.
_CreatedAt = Field(default=None, validation_alias=AliasChoices("createdAt", "creationTime", "created_at"))
_UpdatedAt = Field(default=None, validation_alias=AliasChoices("updatedAt", "updateTime", "updated_at"))
_Metadata: Any = Field(
    default_factory=dict, validate_default=True, validation_alias=AliasChoices("userMetadata", "metadata")
)


class _Response(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, validate_by_name=True, validate_by_alias=True)


class _Entity(_Response):
    id: UUID
    created_at: Annotated[AwareDatetime | None, _NULL] = _CreatedAt
    updated_at: Annotated[AwareDatetime | None, _NULL] = _UpdatedAt
    traceparent: Annotated[str, _Optional(NO_TRACE)] = NO_TRACE
    tracestate: Annotated[str | None, _NULL] = None


class Progress(_Response):
    """The progress of a task or a job.

    The progress of a task is the last one that its worker reported. The progress of a job is the mean of its stages,
    by weight.

    Attributes:
        fraction: The share that is done: 0 to 1.
        message: The text that the handler gave with it; empty for a job.
        eta: The estimated time until it is done; None if it is unknown.
    """

    fraction: float
    message: str = ""
    eta: timedelta | None = Field(default=None, validation_alias=AliasChoices("etaSeconds", "eta"))


class Failure(_Response):
    """Why an attempt failed, as its worker reported it.

    Attributes:
        type: The name of the exception's class.
        message: The exception's message.
        stack: The stack trace; empty if there is none.
    """

    type: str
    message: str = ""
    stack: str = ""


class Job(_Entity, Generic[DataT, MetadataT]):
    """A job.

    Attributes:
        id: Assigned by the manager.
        created_at: When the job was created; None if the manager does not send it.
        updated_at: When it last changed; None if the manager does not send it.
        traceparent: The trace that the job belongs to, in the W3C format.
        tracestate: Vendor-specific trace data, in the W3C format; None if there is none.
        name: The name of its job type.
        status: COMPLETED, FAILED and ABORTED are final.
        priority: Tasks of a higher priority are claimed first.
        percentage: The share of its stages that are completed, rounded down: 0 to 100.
        progress: A finer value than `percentage`. Set by `get_job`, `wait_for_job`, `watch_job` and
            `list_jobs(progress=True)`, if the job has stages and the manager has the feature `weighted-progress`;
            otherwise None.
        ended_at: When it reached a final status; None before, or if the manager does not send it.
        data: As given when the job was created.
        metadata: Its current metadata.
    """

    name: str
    status: Annotated[JobStatus, _OPEN]
    priority: Annotated[Priority, _OPEN]
    percentage: Annotated[int, _ZERO] = 0
    progress: Annotated[Progress | None, _NULL] = None
    ended_at: Annotated[AwareDatetime | None, _NULL] = None
    data: DataT
    metadata: Annotated[MetadataT, _NULL_AS_EMPTY] = _Metadata


class Summary(_Response):
    """The number of tasks of a stage in each status; `total` is their sum.

    `retried` counts the tasks that are waiting for another attempt now, not those that ever failed.
    """

    created: Annotated[int, _ZERO] = 0
    pending: Annotated[int, _ZERO] = 0
    in_progress: Annotated[int, _ZERO] = 0
    completed: Annotated[int, _ZERO] = 0
    failed: Annotated[int, _ZERO] = 0
    retried: Annotated[int, _ZERO] = 0
    aborted: Annotated[int, _ZERO] = 0
    total: Annotated[int, _ZERO] = 0


NO_TASKS: Final = Summary()
"""The summary of a stage without tasks."""


class Stage(_Entity, Generic[TaskT, ResultT, TaskMetadataT, DataT, MetadataT]):
    """A stage.

    Attributes:
        id: Assigned by the manager.
        created_at: When the stage was created; None if the manager does not send it.
        updated_at: When it last changed; None if the manager does not send it.
        traceparent: The trace that the stage belongs to, in the W3C format.
        tracestate: Vendor-specific trace data, in the W3C format; None if there is none.
        job_id: The job that it belongs to.
        type: The name of its stage type.
        order: Its position in the job, counted from 1.
        status: COMPLETED, FAILED and ABORTED are final.
        percentage: The share of its tasks that are completed: 0 to 100. The progress that running tasks have reported
            is not included; it is in the `progress` of the tasks and of the job.
        summary: The number of its tasks in each status.
        start_time: When its first task was claimed; None before.
        end_time: When it reached a final status; None before.
        data: As given when the stage was created.
        metadata: Its current metadata.
    """

    _stage_type: ClassVar[AnyStageType | None] = None

    job_id: UUID
    type: str
    order: int
    status: Annotated[StageStatus, _OPEN]
    percentage: Annotated[int, _ZERO] = 0
    summary: Annotated[Summary, _Optional(NO_TASKS)] = NO_TASKS
    start_time: Annotated[AwareDatetime | None, _NULL] = None
    end_time: Annotated[AwareDatetime | None, _NULL] = None
    data: DataT
    metadata: Annotated[MetadataT, _NULL_AS_EMPTY] = _Metadata


class CreatedJob(Job[DataT, MetadataT], Generic[DataT, MetadataT]):
    """The job that `Producer.create_job` returns: a `Job` with two more attributes.

    Attributes:
        is_new: False if a job with the same `unique_key` already existed; this is the existing job.
        stages: The stages of the job, by their order.
    """

    is_new: bool = True
    stages: tuple[Stage[Any, Any, Any, Any, Any], ...] = ()

    @field_validator("stages", mode="before")
    @classmethod
    def _accept_null(cls, stages: object) -> object:
        return () if stages is None else stages

    @field_validator("stages")
    @classmethod
    def _sort_stages(
        cls, stages: tuple[Stage[Any, Any, Any, Any, Any], ...]
    ) -> tuple[Stage[Any, Any, Any, Any, Any], ...]:
        return tuple(sorted(stages, key=lambda stage: stage.order))


class Task(_Entity, Generic[TaskT, ResultT, TaskMetadataT]):
    """A task.

    Attributes:
        id: Assigned by the manager.
        created_at: When the task was created; None if the manager does not send it.
        updated_at: When it last changed; None if the manager does not send it.
        traceparent: The trace that the task belongs to, in the W3C format.
        tracestate: Vendor-specific trace data, in the W3C format; None if there is none.
        stage_id: The stage that it belongs to.
        status: COMPLETED, FAILED and ABORTED are final.
        attempts: The number of failed attempts: 0 while the first one runs.
        max_attempts: The number of attempts before it fails permanently.
        start_time: When it was last claimed; None before its first attempt.
        end_time: When it reached a final status; None before.
        data: As given when the task was created.
        metadata: Its current metadata.
        result: What the handler returned. None until the task is completed, or if its stage type has no result model.
        error: Why its last attempt failed; None if that attempt did not fail.
        progress: The last progress that its worker reported; None if there is none.
    """

    stage_id: UUID
    status: Annotated[TaskStatus, _OPEN]
    attempts: int
    max_attempts: int
    start_time: Annotated[AwareDatetime | None, _NULL] = None
    end_time: Annotated[AwareDatetime | None, _NULL] = None
    data: TaskT
    metadata: Annotated[TaskMetadataT, _NULL_AS_EMPTY] = _Metadata
    result: ResultT | None = None
    error: Annotated[Failure | None, _NULL] = None
    progress: Annotated[Progress | None, _NULL] = None

    @field_validator("result", mode="before")
    @classmethod
    def _drop_untyped_result(cls, result: object) -> object:
        return None if cls.model_fields["result"].annotation is NoneType else result


class Attempt(_Response):
    """One attempt at a task.

    Attributes:
        number: Counted from 1.
        worker_id: The worker that claimed the task; None if it claimed it without a lease.
        start_time: When the task was claimed.
        end_time: When the attempt ended; None while it runs.
        outcome: COMPLETED, FAILED, RELEASED or SNOOZED, as reported by the worker; EXPIRED or TIMED_OUT, as decided by
            the manager; ABORTED together with the job; None while the attempt runs.
        error: Why the attempt failed; None if it did not.
    """

    number: int
    worker_id: str | None = None
    start_time: AwareDatetime
    end_time: Annotated[AwareDatetime | None, _NULL] = None
    outcome: str | None = None
    error: Annotated[Failure | None, _NULL] = None


class StageOfTask(_Response):
    """The stage of a claimed task, with plain JSON; `order` is its position in the job, counted from 1."""

    id: UUID
    type: str
    order: int
    data: dict[str, JsonValue]
    metadata: Annotated[dict[str, JsonValue], _NULL_AS_EMPTY] = _Metadata


class JobOfTask(_Response):
    """The job of a claimed task, with plain JSON."""

    id: UUID
    name: str
    priority: Annotated[Priority, _OPEN]
    data: dict[str, JsonValue]
    metadata: Annotated[dict[str, JsonValue], _NULL_AS_EMPTY] = _Metadata


class ClaimedTask(Task[TaskT, None, TaskMetadataT], Generic[TaskT, TaskMetadataT]):
    """A task that `Consumer.claim` returned: report it with `Consumer.complete` or `Consumer.fail`.

    It has the attributes of a `Task`, and `stage_type`, the name of its stage type.
    """

    stage_type: str = ""

    @property
    def attempt(self) -> int:
        """The number of the current attempt, counted from 1."""
        return self.attempts + 1


def job_model(job_type: JobType[DataT, MetadataT]) -> type[Job[DataT, MetadataT]]:
    """Return the model of jobs of this type."""
    model: type[Job[DataT, MetadataT]] = _parametrize(Job, job_type.data, job_type.metadata)
    return model


def created_job_model(job_type: JobType[DataT, MetadataT]) -> type[CreatedJob[DataT, MetadataT]]:
    """Return the model of newly created jobs of this type."""
    model: type[CreatedJob[DataT, MetadataT]] = _parametrize(CreatedJob, job_type.data, job_type.metadata)
    return model


@cache
def stage_model(
    stage_type: StageType[TaskT, ResultT, TaskMetadataT, DataT, MetadataT],
) -> type[Stage[TaskT, ResultT, TaskMetadataT, DataT, MetadataT]]:
    """Return the model of stages of this type. Such a stage knows its type: see `stage_type_of`."""
    result: Any = stage_type.result or NoneType
    models = (stage_type.task, result, stage_type.task_metadata, stage_type.data, stage_type.metadata)
    typed = _parametrize(Stage, *models)
    model: type[Stage[TaskT, ResultT, TaskMetadataT, DataT, MetadataT]] = type(
        typed.__name__, (typed,), {"__module__": __name__, "__doc__": typed.__doc__, "_stage_type": stage_type}
    )
    return model


def stage_type_of(
    stage: Stage[TaskT, ResultT, TaskMetadataT, DataT, MetadataT],
) -> StageType[TaskT, ResultT, TaskMetadataT, DataT, MetadataT] | None:
    """Return the type that a stage was read with; None if it was read as plain JSON."""
    return type(stage)._stage_type  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] of this module


def task_model(
    stage_type: StageType[TaskT, ResultT, TaskMetadataT, Any, Any],
) -> type[Task[TaskT, ResultT, TaskMetadataT]]:
    """Return the model of tasks in stages of this type."""
    result: Any = stage_type.result or NoneType
    model: type[Task[TaskT, ResultT, TaskMetadataT]] = _parametrize(
        Task, stage_type.task, result, stage_type.task_metadata
    )
    return model


def model_of_job(job: Job[DataT, MetadataT]) -> type[Job[DataT, MetadataT]]:
    """Return the model of jobs of the same type as this one."""
    model: type[Job[DataT, MetadataT]] = _parametrize(Job, *(_arguments(job) or (Any, Any)))
    return model


def model_of_task(task: Task[TaskT, ResultT, TaskMetadataT]) -> type[Task[TaskT, ResultT, TaskMetadataT]]:
    """Return the model of tasks of the same type as this one."""
    arguments = _arguments(task) or (Any, Any, Any)
    if isinstance(task, ClaimedTask):
        arguments = (arguments[0], NoneType, arguments[-1])
    model: type[Task[TaskT, ResultT, TaskMetadataT]] = _parametrize(Task, *arguments)
    return model


def _arguments(entity: BaseModel) -> tuple[Any, ...]:
    return type(entity).__pydantic_generic_metadata__["args"]


def claimed_task_model(
    stage_type: StageType[TaskT, Any, TaskMetadataT, Any, Any],
) -> type[ClaimedTask[TaskT, TaskMetadataT]]:
    """Return the model of claimed tasks in stages of this type."""
    model: type[ClaimedTask[TaskT, TaskMetadataT]] = _parametrize(
        ClaimedTask, stage_type.task, stage_type.task_metadata
    )
    return model


@cache
def _parametrize(generic: type[BaseModel], *models: type[Any]) -> Any:  # noqa: ANN401 each caller annotates it
    # Cached here: pydantic drops a model without references, and creating one takes longer than a request.
    return generic.__class_getitem__(models)
