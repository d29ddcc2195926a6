"""What clients get, for the OpenAPI document. PostgreSQL writes the answers themselves (store/routines/wire.sql)."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from reference_manager.domain.states import JobStatus, Priority, StageStatus, TaskStatus

Percentage = Annotated[int, Field(ge=0, le=100)]


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
    traceparent: str
    tracestate: Annotated[str, Field(description="Left out when there is none.")] = ""


class Task(Entity):
    """An atomic unit of work."""

    stage_id: UUID
    status: TaskStatus
    attempts: Annotated[int, Field(ge=0, description="Failed attempts so far.")]
    max_attempts: Annotated[int, Field(ge=1)]
    start_time: datetime | None
    end_time: datetime | None
    timeout_seconds: Annotated[float, Field(description="How long one attempt may take. Left out: no limit.")] = 0
    result: Annotated[Any, Field(description="What it gave. Left out when there is none.")] = None
    error: Annotated[dict[str, Any], Field(description="Why its last attempt failed. Left out if it did not.")] = {}
    progress: Annotated[dict[str, Any], Field(description="As its worker told it last. Left out if it did not.")] = {}


class Summary(BaseModel):
    """A stage's tasks by status."""

    model_config = ConfigDict(alias_generator=to_camel)

    created: int
    pending: int
    in_progress: int
    completed: int
    failed: int
    retried: int
    aborted: int
    total: Annotated[int, Field(description="The sum of the others.")]


class Stage(Entity):
    """A phase of a job."""

    job_id: UUID
    type: str
    order: Annotated[int, Field(ge=1)]
    status: StageStatus
    summary: Summary
    percentage: Percentage
    start_time: datetime | None
    end_time: datetime | None
    tasks: Annotated[list[Task], Field(description="Only where asked for.")] = []


class Job(Entity):
    """A business process."""

    name: str
    status: JobStatus
    priority: Priority
    percentage: Percentage
    stages: Annotated[list[Stage], Field(description="Only where asked for.")] = []


class Done(BaseModel):
    """Success without an entity."""

    code: str


class Problem(BaseModel):
    """Why a request was refused."""

    message: str
    code: str
