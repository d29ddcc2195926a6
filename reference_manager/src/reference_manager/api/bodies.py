"""What clients send."""

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self, TypeAlias
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    StrictBool,
    StrictFloat,
    StrictInt,
    StringConstraints,
    model_validator,
)
from pydantic.alias_generators import to_camel

from reference_manager.api.parts import PART_B
from reference_manager.domain.requests import (
    DEFAULT_MAX_ATTEMPTS,
    JsonObject,
    NewJob,
    NewStage,
    NewTasks,
    Trace,
    UniqueKey,
)
from reference_manager.domain.states import Priority

TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
LONGEST_TRACESTATE = 512
LARGEST_INTEGER = 2**31 - 1
HOUR = 3600
"""Seconds."""
YEAR = 365 * 86_400
"""Seconds."""
MOST_STAGES = 100
"""In a request; a job may have any number."""
_PAYLOADS = {"data", "user_metadata"}
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def _whole(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _canonical(value: Any) -> Any:  # noqa: ANN401 - what the path or the query held
    """Ids have one spelling: not without hyphens, not in braces, which Python would take as well."""
    if not _UUID.fullmatch(str(value)):
        raise ValueError("must be a UUID such as 019a2f5e-7c1b-7d3a-9e4f-5b6c7d8e9f00")
    return value


def finite(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Refuse numbers like 1e999: JSON has them, but they have no value that could be given back."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("contains a number that is out of range")
    if isinstance(value, dict):
        for member in value.values():  # pyright: ignore[reportUnknownVariableType]
            finite(member)
    elif isinstance(value, list):
        for member in value:  # pyright: ignore[reportUnknownVariableType]
            finite(member)
    return value  # pyright: ignore[reportUnknownVariableType]


def _unwrapped(body: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Known clients wrap the metadata: a body whose only key is ``userMetadata``, with an object in it, means that."""
    if isinstance(body, dict) and list(body) == ["userMetadata"] and isinstance(body["userMetadata"], dict):  # pyright: ignore[reportUnknownArgumentType]
        return body["userMetadata"]  # pyright: ignore[reportUnknownVariableType]
    return body  # pyright: ignore[reportUnknownVariableType]


def _iso_text(value: Any) -> Any:  # noqa: ANN401 - what the query held
    if not re.match(r"\d{4}-\d{2}-\d{2}", str(value)):
        raise ValueError("must be a date and time of ISO 8601, such as 2026-01-31T12:00:00Z")
    return value


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except OverflowError as error:
        raise ValueError("is outside the years 1 to 9999") from error


Id: TypeAlias = Annotated[UUID, BeforeValidator(_canonical)]
Text: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]
"""What PostgreSQL keeps as text: everything but NUL. Payloads, which are JSON, may have that too."""
Name: TypeAlias = Annotated[Text, StringConstraints(min_length=2, max_length=50)]
NameFilter: TypeAlias = Annotated[Text, StringConstraints(max_length=50)]
StageTypeName: TypeAlias = Annotated[Text, StringConstraints(min_length=1, max_length=50)]
WHOLE = BeforeValidator(_whole)
"""The last annotation of a strict integer: 3.0 is one in JSON, and some clients have no other numbers."""
Payload: TypeAlias = Annotated[dict[str, Any], AfterValidator(finite)]
Metadata: TypeAlias = Annotated[Payload, BeforeValidator(_unwrapped)]
Traceparent: TypeAlias = Annotated[str, StringConstraints(pattern=f"^{TRACEPARENT.pattern}$")]
Tracestate: TypeAlias = Annotated[Text, StringConstraints(max_length=LONGEST_TRACESTATE)]
Instant: TypeAlias = Annotated[datetime, BeforeValidator(_iso_text), AfterValidator(_in_utc)]
Moment: TypeAlias = Annotated[
    Instant, Field(description="A date alone is its first moment; without an offset it is UTC.")
]
Seconds: TypeAlias = Annotated[float, Strict()]
MaxAttempts: TypeAlias = Annotated[StrictInt, Field(ge=1, le=LARGEST_INTEGER), WHOLE]
Timeout: TypeAlias = Annotated[Seconds, Field(ge=0.1, le=YEAR)]


class Body(BaseModel):
    """A request's body: names in camelCase, no others than these."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid")


class Traced(Body):
    """A body that may say which trace its entity belongs to; otherwise the request's own trace context counts."""

    traceparent: Traceparent | None = None
    tracestate: Tracestate | None = None

    def trace(self, of_request: Trace) -> Trace:
        """The trace context of what is created."""
        if self.traceparent is None:
            return of_request
        return Trace(self.traceparent, self.tracestate)


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


class StageBody(Traced):
    """A stage to add to a job."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"type": "thumbnail", "data": {"width": 320}}]})

    type: StageTypeName
    data: Payload
    user_metadata: Payload = {}
    start_as_waiting: StrictBool = False
    weight: Annotated[
        StrictFloat,
        Field(
            ge=0.001,
            le=1000,
            description="How much of its job's progress it is, compared with the other stages.",
            json_schema_extra=PART_B,
        ),
    ] = 1
    task_defaults: Annotated[TaskDefaultsBody | None, Field(json_schema_extra=PART_B)] = None

    def request(self, of_request: Trace) -> NewStage:
        """The stage as the engine takes it."""
        return NewStage(
            self.type,
            self.data,
            self.user_metadata,
            self.start_as_waiting,
            self.trace(of_request),
            self.weight,
            self.task_defaults and self.task_defaults.options(),
        )


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


class StageStatusBody(Body):
    """What a client may move a stage to: PENDING releases it."""

    status: Literal["PENDING"]


class TaskStatusBody(Body):
    """What a client may report of a task."""

    status: Literal["COMPLETED", "FAILED"]
