"""Schemas of stages, for the OpenAPI document."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field

from reference_manager.api.common.fields import StageTypeName
from reference_manager.api.common.schemas import (
    Count,
    Entity,
    NumberedPage,
    Percentage,
    Progress,
    Representation,
    left_out,
)
from reference_manager.api.tasks.responses import Task
from reference_manager.domain.states import StageStatus


class Summary(Representation):
    """The tasks of a stage by status."""

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
    weight: Annotated[
        float, Field(description="The share of the stage in the progress of its job. Left out if it is 1.")
    ] = 1
    task_defaults: Annotated[
        dict[str, Any], Field(description="Default options of its tasks. Left out if there are none.")
    ] = {}
    progress: Annotated[
        Progress, Field(description="Only if requested, and only once the stage has tasks.", json_schema_extra=left_out)
    ] = Progress(fraction=0)
    tasks: Annotated[list[Task], Field(description="Only if requested.", json_schema_extra=left_out)] = []


class StagePage(NumberedPage):
    """A numbered page of stages."""

    items: list[Stage]
