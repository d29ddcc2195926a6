"""Request bodies of stages."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StrictBool, StrictFloat

from reference_manager.api.common.fields import NO_METADATA, Body, BodyContext, NewStageTypeName, Payload, Traced
from reference_manager.api.common.protocol import PART_B
from reference_manager.api.tasks.requests import TaskDefaultsBody
from reference_manager.domain.commands import NewStage, Trace
from reference_manager.domain.payloads import as_floats, canonical, encode, encode_optional


class StageBody(Traced):
    """A stage to add to a job."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"type": "thumbnail", "data": {"width": 320}}]})

    type: NewStageTypeName
    data: Payload
    user_metadata: Payload = NO_METADATA
    start_as_waiting: StrictBool = False
    weight: Annotated[
        StrictFloat,
        Field(
            ge=0.001,
            le=1000,
            description="The share of the stage in the progress of its job, relative to the other stages.",
            json_schema_extra=PART_B,
        ),
    ] = 1
    task_defaults: Annotated[TaskDefaultsBody | None, Field(json_schema_extra=PART_B)] = None

    def convert(self, context: BodyContext) -> NewStage:  # noqa: D102 - as in the base class
        return self.request(context.trace, keyed=context.keyed)

    def request(self, of_request: Trace, *, keyed: bool) -> NewStage:
        """Convert the body to a command of the engine; ``keyed`` if the request has an idempotency key."""
        defaults = self.task_defaults and self.task_defaults.options()
        options = [self.type, self.start_as_waiting, float(self.weight), as_floats(defaults)]
        return NewStage(
            self.type,
            encode(self.data),
            encode(self.user_metadata),
            self.start_as_waiting,
            self.trace(of_request),
            self.weight,
            encode_optional(defaults),
            canonical([*options, self.data, self.user_metadata]) if keyed else "",
        )


class StageStatusBody(Body):
    """The new status of a stage: PENDING releases it."""

    status: Literal["PENDING"]
