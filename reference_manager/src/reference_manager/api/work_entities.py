"""What workers get, and what is told of them, for the OpenAPI document."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from reference_manager.api.entities import Task
from reference_manager.domain.states import Priority, TaskStatus


class _Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)


class StageContext(_Model):
    """The stage of a claimed task."""

    id: UUID
    type: str
    order: int
    data: dict[str, Any]
    user_metadata: dict[str, Any]
    traceparent: str
    tracestate: Annotated[str, Field(description="Left out when there is none.")] = ""


class JobContext(_Model):
    """The job of a claimed task."""

    id: UUID
    name: str
    priority: Priority
    data: dict[str, Any]
    user_metadata: dict[str, Any]
    traceparent: str
    tracestate: Annotated[str, Field(description="Left out when there is none.")] = ""


class ClaimedTask(Task):
    """A task in its worker's hands, with all that it needs to know."""

    lease_id: int
    lease_expires_at: datetime
    stage: StageContext
    job: JobContext


class ClaimedTasks(_Model):
    """What a claim got; empty when nothing came in time."""

    tasks: list[ClaimedTask]


class BriefTask(_Model):
    """A task in its worker's hands, without what the worker does not need."""

    id: UUID
    stage_id: UUID
    data: dict[str, Any]
    user_metadata: dict[str, Any]
    attempts: Annotated[int, Field(ge=0)]
    max_attempts: Annotated[int, Field(ge=1)]
    traceparent: str
    tracestate: Annotated[str, Field(description="Left out when there is none.")] = ""
    timeout_seconds: Annotated[float, Field(description="Left out when there is no limit.")] = 0
    checkpoint: Annotated[Any, Field(description="What the attempt before left; left out when there is none.")] = None
    lease_id: int
    waited_seconds: Annotated[float, Field(ge=0, description="For how long it could have been claimed.")]


class StageAndJob(_Model):
    """The stage of claimed tasks, and its job."""

    stage: StageContext
    job: JobContext


class BriefClaimedTasks(_Model):
    """What a claim got; empty when nothing came in time."""

    tasks: list[BriefTask]
    stages: Annotated[list[StageAndJob], Field(description="Of these tasks.")]


class Settled(_Model):
    """What became of one report."""

    task_id: Annotated[Any, Field(description="As the report has it.")]
    lease_id: Annotated[Any, Field(description="As the report has it.")]
    accepted: bool
    status: Annotated[
        TaskStatus | None, Field(description="What the task has become by this report; or, if refused, what it is.")
    ]
    code: Annotated[
        str | None, Field(description="Why it was refused: LEASE_LOST, TASK_NOT_FOUND or VALIDATION_ERROR.")
    ] = None
    message: str | None = None


class SettledTasks(_Model):
    """One answer for each report, in their order."""

    results: list[Settled]


class RefusedReport(Settled):
    """A report that was refused."""

    index: Annotated[int, Field(ge=0, description="Its place among the reports, from 0.")]


class BriefSettledTasks(_Model):
    """How many reports were accepted, and which were not."""

    accepted: int
    refused: list[RefusedReport]


class HeartbeatAnswer(_Model):
    """What a worker has to know."""

    lost: Annotated[list[int], Field(description="Leases that are no longer its own: others may have the tasks.")]
    cancel: Annotated[list[int], Field(description="Leases of tasks whose job was aborted.")]
    drain: Annotated[bool, Field(description="Whether it is to claim no more, finish and stop.")]


class Worker(_Model):
    """A worker that sends heartbeats."""

    id: str
    stage_types: list[str]
    host: str | None
    version: str | None
    draining: bool
    drain_wanted: bool
    running: Annotated[int, Field(description="Tasks that it said it works on.")]
    start_time: datetime
    seen_time: datetime


class Attempt(_Model):
    """One attempt at a task."""

    number: Annotated[int, Field(ge=1)]
    lease_id: int
    worker_id: Annotated[str | None, Field(description="Null: a client without leases.")]
    start_time: datetime
    end_time: datetime | None
    outcome: Annotated[
        str | None,
        Field(
            description="COMPLETED, FAILED, RELEASED, SNOOZED: its worker's word. EXPIRED, TIMED_OUT: the manager's. "
            "ABORTED: with its job. Null: it runs."
        ),
    ]
    error: dict[str, Any] | None


class Change(_Model):
    """One change of status."""

    source: Annotated[str | None, Field(alias="from", description="Null: it was created.")]
    target: Annotated[str, Field(alias="to")]
    at: datetime
    by: Annotated[str, Field(description="client, manager, or the worker's id.")]
    reason: str


class Depth(_Model):
    """How much work there is for a stage type."""

    waiting: Annotated[int, Field(ge=0, description="Tasks that may be claimed now.")]
    in_progress: Annotated[int, Field(ge=0)]
    total: Annotated[int, Field(ge=0, description="Both together: what an autoscaler reads.")]


class Capabilities(_Model):
    """What this manager can do beyond part A of the protocol."""

    protocol: str
    version: str
    features: list[str]
