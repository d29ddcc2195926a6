"""Request bodies of jobs."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from reference_manager.api.common.fields import (
    NO_METADATA,
    YEAR,
    Body,
    BodyContext,
    Name,
    Payload,
    Seconds,
    Text,
    Traced,
)
from reference_manager.api.common.protocol import PART_B
from reference_manager.api.stages.requests import StageBody
from reference_manager.api.tasks.requests import TaskBody, new_tasks
from reference_manager.domain.commands import NewJob, Trace, UniqueKey
from reference_manager.domain.payloads import as_floats, canonical, encode
from reference_manager.domain.states import Priority

MAX_STAGES = 100
"""In one request; a job may have any number of stages."""


class TreeStageBody(StageBody):
    """A stage to create with its job, and its tasks."""

    tasks: Sequence[TaskBody] = ()


class JobBody(Traced):
    """A job to create."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "holiday pictures", "data": {"album": "2026"}}]})

    name: Name
    data: Payload
    priority: Priority = Priority.MEDIUM
    user_metadata: Payload = NO_METADATA
    stages: Annotated[
        Sequence[TreeStageBody],
        Field(
            max_length=MAX_STAGES,
            description="The stages in order, with their tasks. Either everything is created or nothing. The response "
            "then includes the stages. A stage or task without a trace context gets that of its job or stage.",
            json_schema_extra=PART_B,
        ),
    ] = ()
    unique_key: Annotated[
        Annotated[Text, StringConstraints(min_length=1, max_length=200)] | None,
        Field(
            description="If a job with this key exists, nothing is created, and the response is 200 with that job. "
            "The last job created with the key counts, even if it has another name.",
            json_schema_extra=PART_B,
        ),
    ] = None
    unique_for: Annotated[
        Literal["running"] | Annotated[Seconds, Field(ge=0.001, le=YEAR)],
        Field(
            description="Which job counts as existing: `running`, one that has not ended; a number, one created less "
            "than this number of seconds ago.",
            json_schema_extra=PART_B,
        ),
    ] = "running"

    def convert(self, context: BodyContext) -> NewJob:  # noqa: D102 - as in the base class
        return self.request(context.trace, keyed=context.keyed)

    def request(self, of_request: Trace, *, keyed: bool) -> NewJob:
        """Convert the body to a command of the engine; ``keyed`` if the request has an idempotency key."""
        trace = self.trace(of_request)
        unique = [] if self.unique_key is None else [self.unique_key, as_floats(self.unique_for)]
        stages = [
            (stage.request(trace, keyed=keyed), new_tasks(stage.tasks, stage.trace(trace), keyed=keyed))
            for stage in self.stages
        ]
        return NewJob(
            self.name,
            encode(self.data),
            self.priority,
            encode(self.user_metadata),
            trace,
            stages if "stages" in self.model_fields_set else None,
            None if self.unique_key is None else UniqueKey(self.unique_key, _span(self.unique_for)),
            canonical([self.name, self.data, self.priority, self.user_metadata, *unique]) if keyed else "",
        )


def _span(unique_for: float | Literal["running"]) -> timedelta | None:
    return None if isinstance(unique_for, str) else timedelta(seconds=unique_for)


class PriorityBody(Body):
    """The new priority of a job."""

    priority: Priority


class JobStatusBody(Body):
    """The new status of a job: PENDING resumes it."""

    status: Literal["PENDING", "PAUSED", "ABORTED"]
