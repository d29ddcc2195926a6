"""What clients send about jobs."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from reference_manager.api.common.fields import YEAR, Body, Name, Payload, Seconds, Text, Traced
from reference_manager.api.common.protocol import PART_B
from reference_manager.api.stages.requests import StageBody
from reference_manager.api.tasks.requests import TaskBody, new_tasks
from reference_manager.domain.requests import NewJob, Trace, UniqueKey
from reference_manager.domain.states import Priority

MOST_STAGES = 100
"""In a request; a job may have any number."""


class TreeStageBody(StageBody):
    """A stage to create with its job, and its tasks with it."""

    tasks: Sequence[TaskBody] = ()


class JobBody(Traced):
    """A job to create."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "holiday pictures", "data": {"album": "2026"}}]})

    name: Name
    data: Payload
    priority: Priority = Priority.MEDIUM
    user_metadata: Payload = {}
    stages: Annotated[
        Sequence[TreeStageBody],
        Field(
            max_length=MOST_STAGES,
            description="Its stages in their order, with their tasks: all of it is created, or none. The answer then "
            "has the stages in it. What names no trace has that of its stage or job.",
            json_schema_extra=PART_B,
        ),
    ] = ()
    unique_key: Annotated[
        Annotated[Text, StringConstraints(min_length=1, max_length=200)] | None,
        Field(
            description="Where a job with this key is there already, nothing is created, and the answer is 200 with "
            "that one. The last one that was created with it counts, whatever its name.",
            json_schema_extra=PART_B,
        ),
    ] = None
    unique_for: Annotated[
        Literal["running"] | Annotated[Seconds, Field(ge=0.001, le=YEAR)],
        Field(
            description="Which one is there already: one that has not ended, or one that was created less than so many "
            "seconds ago.",
            json_schema_extra=PART_B,
        ),
    ] = "running"

    def request(self, of_request: Trace) -> NewJob:
        """The job as the engine takes it."""
        trace = self.trace(of_request)
        stages = [(stage.request(trace), new_tasks(stage.tasks, stage.trace(trace))) for stage in self.stages]
        return NewJob(
            self.name,
            self.data,
            self.priority,
            self.user_metadata,
            trace,
            stages if "stages" in self.model_fields_set else None,
            None if self.unique_key is None else UniqueKey(self.unique_key, _span(self.unique_for)),
        )


def _span(unique_for: float | Literal["running"]) -> timedelta | None:
    return None if isinstance(unique_for, str) else timedelta(seconds=unique_for)


class PriorityBody(Body):
    """A job's new priority."""

    priority: Priority


class JobStatusBody(Body):
    """What a client may move a job to: PENDING resumes it."""

    status: Literal["PENDING", "PAUSED", "ABORTED"]
