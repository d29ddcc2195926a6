"""Schemas of claims, reports and depth, for the OpenAPI document."""

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
    tracestate: Annotated[str, Field(description="Left out if there is none.")] = ""


class JobContext(Representation):
    """The job of a claimed task."""

    id: UUID
    name: str
    priority: Priority
    data: dict[str, Any]
    user_metadata: dict[str, Any]
    traceparent: str
    tracestate: Annotated[str, Field(description="Left out if there is none.")] = ""


class ClaimedTask(Task):
    """A claimed task with its lease, its stage and its job."""

    lease_id: int
    lease_expires_at: datetime
    stage: StageContext
    job: JobContext


class ClaimedTasks(Representation):
    """The claimed tasks; empty if none became available in time."""

    tasks: list[ClaimedTask]


class MinimalTask(Representation):
    """A claimed task with its lease, reduced to the fields that a worker needs."""

    id: UUID
    stage_id: UUID
    data: dict[str, Any]
    user_metadata: dict[str, Any]
    attempts: Annotated[int, Field(ge=0)]
    max_attempts: Annotated[int, Field(ge=1)]
    traceparent: str
    tracestate: Annotated[str, Field(description="Left out if there is none.")] = ""
    timeout_seconds: Annotated[float, Field(description="Left out if there is no limit.")] = 0
    retry: Annotated[
        dict[str, Any], Field(description="The delay after a failed attempt. Left out if there is none.")
    ] = {}
    checkpoint: Annotated[
        Any, Field(description="State that the previous attempt saved. Left out if there is none.")
    ] = None
    lease_id: int
    waited_seconds: Annotated[float, Field(ge=0, description="How long the task was available before this claim.")]


class StageAndJob(Representation):
    """A stage of claimed tasks, and its job."""

    stage: StageContext
    job: JobContext


class MinimalClaimedTasks(Representation):
    """The claimed tasks; empty if none became available in time."""

    tasks: list[MinimalTask]
    stages: Annotated[list[StageAndJob], Field(description="The stages of these tasks.")]


class Settled(Representation):
    """The result of one report."""

    task_id: Annotated[Any, Field(description="From the report.")]
    lease_id: Annotated[Any, Field(description="From the report.")]
    accepted: bool
    status: Annotated[
        TaskStatus | None,
        Field(description="The status of the task after this report, or its current status if the report was refused."),
    ]
    code: Annotated[
        str | None,
        Field(
            description="Why the report was refused: LEASE_LOST, TASK_NOT_FOUND or VALIDATION_ERROR. UNDECIDED means "
            "that it was neither accepted nor refused, for example because another session has locked the job. Send an "
            "undecided report again."
        ),
    ] = None
    message: str | None = None


class SettledTasks(Representation):
    """One result for each report, in the same order."""

    results: list[Settled]


class RefusedReport(Settled):
    """A report that was not accepted."""

    index: Annotated[int, Field(ge=0, description="The index of the report in the request, from 0.")]


class MinimalSettledTasks(Representation):
    """The number of accepted reports, and the results of the others."""

    accepted: int
    refused: list[RefusedReport]
    undecided: Annotated[
        list[RefusedReport], Field(description="Reports with the code UNDECIDED. Left out if there are none.")
    ] = []


class Depth(Representation):
    """The amount of work of a stage type."""

    waiting: Annotated[int, Field(ge=0, description="Tasks that can be claimed now.")]
    in_progress: Annotated[int, Field(ge=0)]
    total: Annotated[int, Field(ge=0, description="The sum of both, for autoscalers.")]
