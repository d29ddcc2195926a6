"""Query parameters."""

from typing import Annotated, Final

from pydantic import BaseModel, Field, StringConstraints

from jobnik_sdk.model.definitions import Priority, StageStatus, TaskStatus
from jobnik_sdk.testing.fake.bodies import Id, Instant, StageTypeName, Text

PART_B: Final = frozenset({"limit", "cursor", "should_return_progress"})
"""The parameters that part A does not have."""


class Query(BaseModel):
    """A query without parameters, and the base of all others."""


class PageQuery(Query):
    """A page of a list."""

    limit: Annotated[int, Field(ge=1, le=500)] | None = None
    cursor: str | None = None


class JobQuery(PageQuery):
    """Selects the jobs to list; the dates refer to their creation and are inclusive."""

    job_name: Annotated[Text, StringConstraints(max_length=50)] | None = None
    priority: Priority | None = None
    from_date: Instant | None = None
    end_date: Instant | None = None
    should_return_stages: bool = False


class StagesOfJobQuery(PageQuery):
    """How to list the stages of a job."""

    should_return_tasks: bool = False


class StageQuery(StagesOfJobQuery):
    """Selects the stages to list."""

    job_id: Id | None = None
    stage_type: StageTypeName | None = None
    stage_operation_status: StageStatus | None = None


class TaskQuery(PageQuery):
    """Selects the tasks to list; the dates refer to their creation and are inclusive."""

    stage_id: Id | None = None
    stage_type: StageTypeName | None = None
    status: TaskStatus | None = None
    from_date: Instant | None = None
    end_date: Instant | None = None


class OneJobQuery(Query):
    """Selects the parts of a job to return."""

    should_return_stages: bool = False
    should_return_progress: bool = False


class OneStageQuery(Query):
    """Selects the parts of a stage to return."""

    should_return_tasks: bool = False
    should_return_progress: bool = False
