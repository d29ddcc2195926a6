"""What claims and reports are answered, for the OpenAPI document."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field

from reference_manager.api.common.schemas import Representation
from reference_manager.api.tasks.responses import Task
from reference_manager.domain.states import Priority, TaskStatus


class StageContext(Representation):
    """The stage of a claimed task."""

    id: UUID
    type: str
    order: int
    data: dict[str, Any]
    user_metadata: dict[str, Any]
    traceparent: str
    tracestate: Annotated[str, Field(description="Left out when there is none.")] = ""


class JobContext(Representation):
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


class ClaimedTasks(Representation):
    """What a claim got; empty when nothing came in time."""

    tasks: list[ClaimedTask]


class BriefTask(Representation):
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


class StageAndJob(Representation):
    """The stage of claimed tasks, and its job."""

    stage: StageContext
    job: JobContext


class BriefClaimedTasks(Representation):
    """What a claim got; empty when nothing came in time."""

    tasks: list[BriefTask]
    stages: Annotated[list[StageAndJob], Field(description="Of these tasks.")]


class Settled(Representation):
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


class SettledTasks(Representation):
    """One answer for each report, in their order."""

    results: list[Settled]


class RefusedReport(Settled):
    """A report that was refused."""

    index: Annotated[int, Field(ge=0, description="Its place among the reports, from 0.")]


class BriefSettledTasks(Representation):
    """How many reports were accepted, and which were not."""

    accepted: int
    refused: list[RefusedReport]


class Depth(Representation):
    """How much work there is for a stage type."""

    waiting: Annotated[int, Field(ge=0, description="Tasks that may be claimed now.")]
    in_progress: Annotated[int, Field(ge=0)]
    total: Annotated[int, Field(ge=0, description="Both together: what an autoscaler reads.")]
