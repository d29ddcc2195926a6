"""What clients get, for the OpenAPI document. PostgreSQL writes the answers themselves (store/routines/wire.sql)."""

from datetime import datetime
from typing import Annotated, Any, TypeAlias
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from reference_manager.api.bodies import Name, StageTypeName, Traceparent
from reference_manager.domain.states import JobStatus, Priority, StageStatus, TaskStatus

Count: TypeAlias = Annotated[int, Field(ge=0)]
Percentage: TypeAlias = Annotated[int, Field(ge=0, le=100)]


def _left_out(schema: dict[str, Any]) -> None:
    """What is not there has no value; the default is Python's alone."""
    schema.pop("default")


class Entity(BaseModel):
    """What jobs, stages and tasks have in common."""

    model_config = ConfigDict(alias_generator=to_camel)

    id: UUID
    data: dict[str, Any]
    user_metadata: dict[str, Any]
    created_at: Annotated[datetime, Field(description="UTC, with milliseconds.")]
    updated_at: Annotated[datetime, Field(description="UTC, with milliseconds.")]
    creation_time: Annotated[datetime, Field(description="createdAt as older clients spell it.")]
    update_time: Annotated[datetime, Field(description="updatedAt as older clients spell it.")]
    traceparent: Traceparent
    tracestate: Annotated[str, Field(description="Left out when there is none.", json_schema_extra=_left_out)] = ""


class Task(Entity):
    """An atomic unit of work."""

    stage_id: UUID
    status: TaskStatus
    attempts: Annotated[Count, Field(description="Failed attempts so far.")]
    max_attempts: Annotated[int, Field(ge=1)]
    start_time: datetime | None
    end_time: datetime | None
    timeout_seconds: Annotated[float, Field(description="How long one attempt may take. Left out: no limit.")] = 0
    retry: Annotated[
        dict[str, Any], Field(description="How long it waits after a failed attempt. Left out: not at all.")
    ] = {}
    result: Annotated[Any, Field(description="What it gave. Left out when there is none.")] = None
    error: Annotated[dict[str, Any], Field(description="Why its last attempt failed. Left out if it did not.")] = {}
    progress: Annotated[dict[str, Any], Field(description="As its worker told it last. Left out if it did not.")] = {}
    checkpoint: Annotated[Any, Field(description="What an attempt left for the next. Left out if nothing.")] = None


class TasksCreated(BaseModel):
    """The answer to tasks whose creator does not want them back."""

    created: Count


class Progress(BaseModel):
    """How far a stage or a job is."""

    model_config = ConfigDict(alias_generator=to_camel)

    fraction: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Of a stage: its completed tasks, and of those in progress the fractions that their workers "
            "told, of all its tasks. Of a job: the mean of its stages by their weights.",
        ),
    ]
    eta_seconds: Annotated[
        float,
        Field(
            ge=0,
            description="How long it will still take, if it goes on as it did since its start. Left out while nothing "
            "is done, and where it does not go on.",
            json_schema_extra=_left_out,
        ),
    ] = 0


class Summary(BaseModel):
    """A stage's tasks by status."""

    model_config = ConfigDict(alias_generator=to_camel)

    created: Count
    pending: Count
    in_progress: Count
    completed: Count
    failed: Count
    retried: Count
    aborted: Count
    total: Annotated[Count, Field(description="The sum of the others.")]


class Stage(Entity):
    """A phase of a job."""

    job_id: UUID
    type: StageTypeName
    order: Annotated[int, Field(ge=1)]
    status: StageStatus
    summary: Summary
    percentage: Percentage
    start_time: datetime | None
    end_time: datetime | None
    weight: Annotated[float, Field(description="How much of its job's progress it is. Left out: 1.")] = 1
    task_defaults: Annotated[
        dict[str, Any], Field(description="Options for its tasks. Left out when there are none.")
    ] = {}
    progress: Annotated[
        Progress, Field(description="Only where asked for, and not before it has tasks.", json_schema_extra=_left_out)
    ] = Progress(fraction=0)
    tasks: Annotated[list[Task], Field(description="Only where asked for.", json_schema_extra=_left_out)] = []


class Job(Entity):
    """A business process."""

    name: Name
    status: JobStatus
    priority: Priority
    percentage: Percentage
    progress: Annotated[
        Progress, Field(description="Only where asked for, and not before it has stages.", json_schema_extra=_left_out)
    ] = Progress(fraction=0)
    stages: Annotated[list[Stage], Field(description="Only where asked for.", json_schema_extra=_left_out)] = []


class Done(BaseModel):
    """Success without an entity."""

    code: str


class Problem(BaseModel):
    """Why a request was refused."""

    message: str
    code: str
