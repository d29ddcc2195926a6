"""Tasks as clients get them, for the OpenAPI document."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, Field

from reference_manager.api.common.schemas import Count, Entity
from reference_manager.domain.states import TaskStatus


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
