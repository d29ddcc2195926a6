"""Schemas of jobs, for the OpenAPI document."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from reference_manager.api.common.fields import Name
from reference_manager.api.common.schemas import Entity, NumberedPage, Percentage, Progress, left_out
from reference_manager.api.stages.responses import Stage
from reference_manager.domain.states import JobStatus, Priority


class Job(Entity):
    """A business process."""

    name: Name
    status: JobStatus
    priority: Priority
    percentage: Percentage
    ended_at: Annotated[
        datetime | None,
        Field(
            description="When the job became COMPLETED, FAILED or ABORTED; null before. UTC, with milliseconds. "
            "For a job that ended before the manager recorded this: when it last changed."
        ),
    ]
    progress: Annotated[
        Progress, Field(description="Only if requested, and only once the job has stages.", json_schema_extra=left_out)
    ] = Progress(fraction=0)
    stages: Annotated[list[Stage], Field(description="Only if requested.", json_schema_extra=left_out)] = []


class JobPage(NumberedPage):
    """A numbered page of jobs."""

    items: list[Job]
