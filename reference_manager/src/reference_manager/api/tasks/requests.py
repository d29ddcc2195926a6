"""Request bodies of tasks."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import ConfigDict, Field, StrictFloat, StrictInt, model_validator

from reference_manager.api.common.fields import (
    MAX_INTEGER,
    NO_METADATA,
    WHOLE,
    YEAR,
    Body,
    Instant,
    Payload,
    Seconds,
    Traced,
)
from reference_manager.api.common.protocol import PART_B
from reference_manager.domain.commands import DEFAULT_MAX_ATTEMPTS, NewTasks, Trace
from reference_manager.domain.payloads import as_floats, canonical, encode, encode_optional

HOUR = 3600
"""Seconds."""
_PAYLOADS = {"data", "user_metadata"}
_TRACE = {"traceparent", "tracestate"}

JsonObject: TypeAlias = Mapping[str, object]

MaxAttempts: TypeAlias = Annotated[StrictInt, Field(ge=1, le=MAX_INTEGER), WHOLE]
Timeout: TypeAlias = Annotated[Seconds, Field(ge=0.1, le=YEAR)]


class RetryBody(Body):
    """How long a task waits after a failed attempt, while it has attempts left."""

    strategy: Annotated[
        Literal["fixed", "exponential"],
        Field(description="`fixed`: each delay is delaySeconds; `exponential`: factor times the previous delay."),
    ] = "exponential"
    delay_seconds: Annotated[Seconds, Field(ge=0, le=YEAR, description="The first delay.")] = 1
    factor: Annotated[StrictFloat, Field(ge=1, le=100, description="Ignored by `fixed`.")] = 2
    max_delay_seconds: Annotated[
        Seconds | None,
        Field(
            ge=0,
            le=YEAR,
            description="The maximum delay; ignored by `fixed`. Null: one hour, or delaySeconds if that is longer.",
        ),
    ] = None
    jitter: Annotated[
        StrictFloat,
        Field(ge=0, le=1, description="A random deviation: each delay is longer or shorter by up to this fraction."),
    ] = 0

    def policy(self) -> JsonObject:
        """Return the policy as stored and shown: the fields that its strategy uses, with their defaults."""
        if self.strategy == "fixed":
            return self.model_dump(by_alias=True, include={"strategy", "delay_seconds", "jitter"})
        longest = max(HOUR, self.delay_seconds) if self.max_delay_seconds is None else self.max_delay_seconds
        return self.model_copy(update={"max_delay_seconds": longest}).model_dump(by_alias=True)


class TaskDefaultsBody(Body):
    """Default options of the tasks of a stage. An option of a task overrides its default."""

    max_attempts: MaxAttempts | None = None
    timeout_seconds: Timeout | None = None
    retry: RetryBody | None = None

    def options(self) -> JsonObject | None:
        """Return the given options as stored and shown; None if there are none."""
        given = {
            "maxAttempts": self.max_attempts,
            "timeoutSeconds": self.timeout_seconds,
            "retry": self.retry and self.retry.policy(),
        }
        return {name: value for name, value in given.items() if value is not None} or None


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
    user_metadata: Payload = NO_METADATA
    max_attempts: Annotated[
        MaxAttempts, Field(description="If left out: from the stage's taskDefaults, otherwise the default.")
    ] = DEFAULT_MAX_ATTEMPTS
    timeout_seconds: Annotated[
        Timeout | None,
        Field(
            description="The time limit of one attempt. Null: from the stage's taskDefaults, otherwise no limit.",
            json_schema_extra=PART_B,
        ),
    ] = None
    retry: Annotated[
        RetryBody | None,
        Field(
            description="The delay after a failed attempt. Null: from the stage's taskDefaults, otherwise no delay.",
            json_schema_extra=PART_B,
        ),
    ] = None
    available_at: Annotated[
        Instant | None,
        Field(
            description="The earliest time at which the task may be claimed. Null: at once.", json_schema_extra=PART_B
        ),
    ] = None
    delay_seconds: Annotated[
        Seconds | None,
        Field(
            ge=0,
            le=YEAR,
            description="The same as a delay from now; not together with availableAt.",
            json_schema_extra=PART_B,
        ),
    ] = None

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        if self.available_at is not None and self.delay_seconds is not None:
            raise ValueError("set availableAt or delaySeconds, not both")
        return self

    def options(self) -> JsonObject | None:
        """Return the given options for the engine; None if there are none."""
        given = self.model_fields_set - _PAYLOADS
        if not given:
            return None
        options = self.model_dump(by_alias=True, include=given, exclude_none=True)
        return options | {"retry": self.retry.policy()} if self.retry else options


def new_tasks(bodies: Sequence[TaskBody], of_request: Trace, *, keyed: bool) -> NewTasks:
    """Convert bodies to a command of the engine; ``keyed`` if the request has an idempotency key."""
    data = [body.data for body in bodies]
    given_metadata = [body.user_metadata for body in bodies]
    metadata = given_metadata if any(given_metadata) else None
    given_options = [body.options() for body in bodies]
    options = given_options if any(given_options) else None
    return NewTasks(
        len(bodies),
        encode(data),
        of_request,
        encode_optional(metadata),
        encode_optional(options),
        canonical([data, metadata, _untraced(options)]) if keyed else "",
    )


def _untraced(options: Sequence[JsonObject | None] | None) -> Sequence[JsonObject] | None:
    """Return the options without trace contexts, with floats for all numbers. None: there are none."""
    untraced = [
        {name: as_floats(value) for name, value in (one or {}).items() if name not in _TRACE} for one in options or ()
    ]
    return untraced if any(untraced) else None


class TaskStatusBody(Body):
    """The reported status of a task."""

    status: Literal["COMPLETED", "FAILED"]
