"""What clients send about tasks."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import ConfigDict, Field, StrictFloat, StrictInt, model_validator

from reference_manager.api.common.fields import (
    LARGEST_INTEGER,
    WHOLE,
    YEAR,
    Body,
    Instant,
    Payload,
    Seconds,
    Traced,
)
from reference_manager.api.common.protocol import PART_B
from reference_manager.domain.requests import DEFAULT_MAX_ATTEMPTS, JsonObject, NewTasks, Trace

HOUR = 3600
"""Seconds."""
_PAYLOADS = {"data", "user_metadata"}

MaxAttempts: TypeAlias = Annotated[StrictInt, Field(ge=1, le=LARGEST_INTEGER), WHOLE]
Timeout: TypeAlias = Annotated[Seconds, Field(ge=0.1, le=YEAR)]


class RetryBody(Body):
    """How long a task waits after a failed attempt, for as long as it has attempts left."""

    strategy: Annotated[
        Literal["fixed", "exponential"],
        Field(description="Whether each delay is delaySeconds, or factor times the one before."),
    ] = "exponential"
    delay_seconds: Annotated[Seconds, Field(ge=0, le=YEAR, description="The first delay.")] = 1
    factor: Annotated[StrictFloat, Field(ge=1, le=100, description="Not for fixed ones.")] = 2
    max_delay_seconds: Annotated[
        Seconds | None,
        Field(
            ge=0,
            le=YEAR,
            description="The longest delay; not for fixed ones. Null: an hour, or delaySeconds if that is longer.",
        ),
    ] = None
    jitter: Annotated[
        StrictFloat,
        Field(ge=0, le=1, description="Each delay is longer or shorter by up to this share of it, by chance."),
    ] = 0

    def policy(self) -> JsonObject:
        """The policy as it is kept and shown: what counts for its strategy, with nothing left open."""
        if self.strategy == "fixed":
            return self.model_dump(by_alias=True, include={"strategy", "delay_seconds", "jitter"})
        longest = max(HOUR, self.delay_seconds) if self.max_delay_seconds is None else self.max_delay_seconds
        return self.model_copy(update={"max_delay_seconds": longest}).model_dump(by_alias=True)


class TaskDefaultsBody(Body):
    """Options for a stage's tasks: each counts for those that do not say it themselves."""

    max_attempts: MaxAttempts | None = None
    timeout_seconds: Timeout | None = None
    retry: RetryBody | None = None

    def options(self) -> JsonObject | None:
        """What is said, as it is kept and shown; None if nothing is."""
        said = {
            "maxAttempts": self.max_attempts,
            "timeoutSeconds": self.timeout_seconds,
            "retry": self.retry and self.retry.policy(),
        }
        return {name: value for name, value in said.items() if value is not None} or None


class TaskBody(Traced):
    """A task to add to a stage."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"data": {"file": "beach.jpg"}}, {"data": {"file": "town.jpg"}}],
            "not": {
                "properties": {"availableAt": {"type": "string"}, "delaySeconds": {"type": "number"}},
                "required": ["availableAt", "delaySeconds"],
            },
        }
    )

    data: Payload
    user_metadata: Payload = {}
    max_attempts: Annotated[
        MaxAttempts, Field(description="Left out: as the stage's taskDefaults say, else the default.")
    ] = DEFAULT_MAX_ATTEMPTS
    timeout_seconds: Annotated[
        Timeout | None,
        Field(
            description="How long one attempt may take; null: as the stage's taskDefaults say, else no limit.",
            json_schema_extra=PART_B,
        ),
    ] = None
    retry: Annotated[
        RetryBody | None,
        Field(
            description="What counts after a failed attempt; null: as the stage's taskDefaults say, else no delay.",
            json_schema_extra=PART_B,
        ),
    ] = None
    available_at: Annotated[
        Instant | None,
        Field(description="When it may be claimed at the earliest; null: at once.", json_schema_extra=PART_B),
    ] = None
    delay_seconds: Annotated[
        Seconds | None,
        Field(
            ge=0,
            le=YEAR,
            description="The same, from now on; not together with availableAt.",
            json_schema_extra=PART_B,
        ),
    ] = None

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        if self.available_at is not None and self.delay_seconds is not None:
            raise ValueError("availableAt and delaySeconds say the same: give one")
        return self

    def options(self) -> JsonObject | None:
        """What it says beside its payloads, as the engine takes it; None if nothing."""
        said = self.model_fields_set - _PAYLOADS
        if not said:
            return None
        options = self.model_dump(by_alias=True, include=said, exclude_none=True)
        return options | {"retry": self.retry.policy()} if self.retry else options


def new_tasks(bodies: Sequence[TaskBody], of_request: Trace) -> NewTasks:
    """Tasks as the engine takes them."""
    metadata = [body.user_metadata for body in bodies]
    options = [body.options() for body in bodies]
    return NewTasks(
        [body.data for body in bodies],
        of_request,
        metadata if any(metadata) else None,
        options if any(options) else None,
    )


class TaskStatusBody(Body):
    """What a client may report of a task."""

    status: Literal["COMPLETED", "FAILED"]
