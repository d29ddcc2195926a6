"""Stages as clients get them, for the OpenAPI document."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field

from reference_manager.api.common.fields import StageTypeName
from reference_manager.api.common.schemas import Count, Entity, Percentage, Progress, Representation, left_out
from reference_manager.api.tasks.responses import Task
from reference_manager.domain.states import StageStatus


class Summary(Representation):
    """A stage's tasks by status."""

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
        Progress, Field(description="Only where asked for, and not before it has tasks.", json_schema_extra=left_out)
    ] = Progress(fraction=0)
    tasks: Annotated[list[Task], Field(description="Only where asked for.", json_schema_extra=left_out)] = []
