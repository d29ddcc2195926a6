"""Schemas of tasks, for the OpenAPI document."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, Field

from reference_manager.api.common.schemas import Count, Entity, NumberedPage
from reference_manager.domain.states import TaskStatus


class Task(Entity):
    """An atomic unit of work."""

    stage_id: UUID
    status: TaskStatus
    attempts: Annotated[Count, Field(description="Failed attempts so far.")]
    max_attempts: Annotated[int, Field(ge=1)]
    start_time: datetime | None
    end_time: datetime | None
    timeout_seconds: Annotated[
        float, Field(description="The time limit of one attempt. Left out if there is none.")
    ] = 0
    retry: Annotated[
        dict[str, Any], Field(description="The delay after a failed attempt. Left out if there is none.")
    ] = {}
    result: Annotated[Any, Field(description="The result of a completed task. Left out if there is none.")] = None
    error: Annotated[
        dict[str, Any], Field(description="The error of the last attempt. Left out if that attempt did not fail.")
    ] = {}
    progress: Annotated[
        dict[str, Any], Field(description="The progress that its worker last reported. Left out if it reported none.")
    ] = {}
    checkpoint: Annotated[
        Any, Field(description="State that an attempt saved for the next one. Left out if there is none.")
    ] = None


class TaskPage(NumberedPage):
    """A numbered page of tasks."""

    items: list[Task]


class TasksCreated(BaseModel):
    """The minimal response to the creation of tasks."""

    created: Count
