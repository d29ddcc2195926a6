"""What clients may send: part A of the protocol, and what part B adds to it."""

import math
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal, Self, TypeAlias
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    Strict,
    StrictBool,
    StrictFloat,
    StrictInt,
    StringConstraints,
    model_validator,
)
from pydantic.alias_generators import to_camel

from jobnik_sdk.model.definitions import Priority

HOUR: Final = 3600
YEAR: Final = 365 * 86_400
"""Seconds."""
DEFAULT_MAX_ATTEMPTS: Final = 3
MOST_STAGES: Final = 100
"""In one request."""
MOST_TASKS: Final = 500
"""In one claim or report."""
LARGEST_LEASE_ID: Final = 2**53 - 1
TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
LONGEST_TRACESTATE: Final = 512
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def _canonical(value: Any) -> Any:  # noqa: ANN401 what the path or the query held
    if not _UUID.fullmatch(str(value)):
        raise ValueError("must be a UUID such as 019a2f5e-7c1b-7d3a-9e4f-5b6c7d8e9f00")
    return value


def _finite(value: Any) -> Any:  # noqa: ANN401 any JSON value
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("contains a number that is out of range")
    for member in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():  # pyright: ignore[reportUnknownVariableType]
        _finite(member)
    return value  # pyright: ignore[reportUnknownVariableType]


def _unwrapped(body: Any) -> Any:  # noqa: ANN401 any JSON value
    """Known clients wrap metadata: a body whose only key is `userMetadata`, with an object in it, means that object."""
    if isinstance(body, dict) and list(body) == ["userMetadata"] and isinstance(body["userMetadata"], dict):  # pyright: ignore[reportUnknownArgumentType]
        return body["userMetadata"]  # pyright: ignore[reportUnknownVariableType]
    return body  # pyright: ignore[reportUnknownVariableType]


def _in_utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)


Id: TypeAlias = Annotated[UUID, BeforeValidator(_canonical)]
Text: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]
Name: TypeAlias = Annotated[Text, StringConstraints(min_length=2, max_length=50)]
StageTypeName: TypeAlias = Annotated[Text, StringConstraints(min_length=1, max_length=50)]
WorkerId: TypeAlias = Annotated[Text, StringConstraints(min_length=1, max_length=200)]
Payload: TypeAlias = Annotated[dict[str, Any], AfterValidator(_finite)]
Metadata: TypeAlias = Annotated[Payload, BeforeValidator(_unwrapped)]
AnyJson: TypeAlias = Annotated[JsonValue, AfterValidator(_finite)]
Instant: TypeAlias = Annotated[datetime, AfterValidator(_in_utc)]
Seconds: TypeAlias = Annotated[float, Strict()]
MaxAttempts: TypeAlias = Annotated[StrictInt, Field(ge=1, le=2**31 - 1)]
Timeout: TypeAlias = Annotated[Seconds, Field(ge=0.1, le=YEAR)]


class Body(BaseModel):
    """A request's body: names in camelCase, no others than these."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid")


class Created(Body):
    """What jobs, stages and tasks are created with."""

    data: Payload
    user_metadata: Payload = {}
    traceparent: Annotated[str, StringConstraints(pattern=f"^{TRACEPARENT.pattern}$")] | None = None
    tracestate: Annotated[Text, StringConstraints(max_length=LONGEST_TRACESTATE)] | None = None


class PlainJobBody(Created):
    """A job, by part A."""

    name: Name
    priority: Priority = Priority.MEDIUM


class PlainStageBody(Created):
    """A stage, by part A."""

    type: StageTypeName
    start_as_waiting: StrictBool = False


class PlainTaskBody(Created):
    """A task, by part A."""

    max_attempts: MaxAttempts = DEFAULT_MAX_ATTEMPTS


class RetryBody(Body):
    """How long a task waits after a failed attempt."""

    strategy: Literal["fixed", "exponential"] = "exponential"
    delay_seconds: Annotated[Seconds, Field(ge=0, le=YEAR)] = 1
    factor: Annotated[StrictFloat, Field(ge=1, le=100)] = 2
    max_delay_seconds: Annotated[Seconds | None, Field(ge=0, le=YEAR)] = None
    jitter: Annotated[StrictFloat, Field(ge=0, le=1)] = 0

    def policy(self) -> dict[str, Any]:
        """The policy as it is kept and shown, with nothing left open."""
        if self.strategy == "fixed":
            return self.model_dump(by_alias=True, include={"strategy", "delay_seconds", "jitter"})
        longest = max(HOUR, self.delay_seconds) if self.max_delay_seconds is None else self.max_delay_seconds
        return self.model_copy(update={"max_delay_seconds": longest}).model_dump(by_alias=True)


class TaskDefaultsBody(Body):
    """Options of a stage's tasks that do not say them themselves."""

    max_attempts: MaxAttempts | None = None
    timeout_seconds: Timeout | None = None
    retry: RetryBody | None = None

    def options(self) -> dict[str, Any] | None:
        """What is said, as it is kept and shown."""
        said = {
            "maxAttempts": self.max_attempts,
            "timeoutSeconds": self.timeout_seconds,
            "retry": self.retry and self.retry.policy(),
        }
        return {name: value for name, value in said.items() if value is not None} or None


class StageBody(PlainStageBody):
    """A stage."""

    weight: Annotated[StrictFloat, Field(ge=0.001, le=1000)] = 1
    task_defaults: TaskDefaultsBody | None = None


class TaskBody(PlainTaskBody):
    """A task."""

    timeout_seconds: Timeout | None = None
    retry: RetryBody | None = None
    available_at: Instant | None = None
    delay_seconds: Annotated[Seconds | None, Field(ge=0, le=YEAR)] = None

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        if self.available_at is not None and self.delay_seconds is not None:
            raise ValueError("availableAt and delaySeconds say the same: give one")
        return self


class TreeStageBody(StageBody):
    """A stage with its tasks."""

    tasks: list[TaskBody] = []


class JobBody(PlainJobBody):
    """A job, with its stages."""

    stages: Annotated[list[TreeStageBody], Field(max_length=MOST_STAGES)] = []
    unique_key: Annotated[Text, StringConstraints(min_length=1, max_length=200)] | None = None
    unique_for: Literal["running"] | Annotated[Seconds, Field(ge=0.001, le=YEAR)] = "running"


class PriorityBody(Body):
    """A job's new priority."""

    priority: Priority


class JobStatusBody(Body):
    """What a client may move a job to."""

    status: Literal["PENDING", "PAUSED", "ABORTED"]


class StageStatusBody(Body):
    """What a client may move a stage to."""

    status: Literal["PENDING"]


class TaskStatusBody(Body):
    """What a client may report of a task."""

    status: Literal["COMPLETED", "FAILED"]


class ClaimBody(Body):
    """A wish for tasks."""

    worker_id: WorkerId
    limit: Annotated[StrictInt, Field(ge=1, le=MOST_TASKS)] = 1
    wait_seconds: Annotated[Seconds, Field(ge=0, le=30)] = 0
    lease_seconds: Annotated[Seconds, Field(ge=1, le=3600)] = 30


class ErrorBody(Body):
    """Why an attempt failed."""

    type: Annotated[Text, StringConstraints(max_length=200)]
    message: Annotated[Text, StringConstraints(max_length=10_000)] = ""
    stack: Annotated[Text, StringConstraints(max_length=50_000)] = ""


class ReportBody(Body):
    """How an attempt ended."""

    task_id: Id
    lease_id: Annotated[StrictInt, Field(ge=1, le=LARGEST_LEASE_ID)]
    outcome: Literal["COMPLETED", "FAILED", "RELEASED", "SNOOZED"]
    result: AnyJson = None
    error: ErrorBody | None = None
    retryable: StrictBool = True
    delay_seconds: Annotated[Seconds | None, Field(ge=0, le=YEAR)] = None
    checkpoint: AnyJson = None


class SettleBody(Body):
    """Reports of one worker; each is looked at for itself, later."""

    worker_id: WorkerId
    results: Annotated[list[Any], Field(min_length=1, max_length=MOST_TASKS)]


class ProgressBody(Body):
    """How far a task is."""

    fraction: Annotated[StrictFloat, Field(ge=0, le=1)]
    message: Annotated[Text, StringConstraints(max_length=500)] = ""
    eta_seconds: Annotated[Seconds | None, Field(ge=0, le=YEAR)] = None


class RunningBody(Body):
    """A task that a worker works on."""

    task_id: Id
    lease_id: Annotated[StrictInt, Field(ge=1, le=LARGEST_LEASE_ID)]
    progress: ProgressBody | None = None
    checkpoint: AnyJson = None


class HeartbeatBody(Body):
    """What a worker says of itself."""

    stage_types: Annotated[list[StageTypeName], Field(max_length=100)]
    host: Annotated[Text, StringConstraints(max_length=255)] | None = None
    version: Annotated[Text, StringConstraints(max_length=100)] | None = None
    running: Annotated[list[RunningBody], Field(max_length=10_000)] = []
    draining: StrictBool = False


class DrainBody(Body):
    """An order for a worker."""

    drain: StrictBool


def span(seconds: float | None) -> timedelta | None:
    """Return seconds as a span of time."""
    return None if seconds is None else timedelta(seconds=seconds)
