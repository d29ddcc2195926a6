"""Request bodies: those of part A of the protocol, and those with the fields that part B adds."""

import math
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal, Self, TypeAlias, cast
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
from typing_extensions import override

from jobnik_sdk.model.arguments import MAX_DURATION
from jobnik_sdk.model.definitions import MAX_FACTOR, Priority

HOUR: Final = 3600
"""Seconds."""
MAX_SECONDS: Final = int(MAX_DURATION.total_seconds())
DEFAULT_MAX_ATTEMPTS: Final = 3
MAX_STAGES: Final = 100
"""In one request."""
MAX_TASKS: Final = 500
"""In one claim or in one request that reports outcomes."""
MAX_LEASE_ID: Final = 2**53 - 1
TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
MAX_TRACESTATE_LENGTH: Final = 512
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def _canonical(value: Any) -> Any:  # noqa: ANN401 a part of the path or the query
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
    """Unwrap metadata: some clients send an object whose only key is `userMetadata`."""
    if isinstance(body, dict) and list(body) == ["userMetadata"] and isinstance(body["userMetadata"], dict):  # pyright: ignore[reportUnknownArgumentType]
        return body["userMetadata"]  # pyright: ignore[reportUnknownVariableType]
    return body  # pyright: ignore[reportUnknownVariableType]


def _reachable(value: str) -> str:
    if value in {".", ".."}:
        raise ValueError("must not be . or .., which cannot be part of a URL")
    return value


def _whole(value: Any) -> Any:  # noqa: ANN401 any JSON value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _in_utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)


Id: TypeAlias = Annotated[UUID, BeforeValidator(_canonical)]
Text: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]
Name: TypeAlias = Annotated[Text, StringConstraints(min_length=2, max_length=50)]
StageTypeName: TypeAlias = Annotated[Text, StringConstraints(min_length=1, max_length=50)]
WorkerId: TypeAlias = Annotated[Text, StringConstraints(min_length=1, max_length=200)]
NewStageTypeName: TypeAlias = Annotated[StageTypeName, AfterValidator(_reachable)]
NewWorkerId: TypeAlias = Annotated[WorkerId, AfterValidator(_reachable)]
Payload: TypeAlias = Annotated[dict[str, Any], AfterValidator(_finite)]
Metadata: TypeAlias = Annotated[Payload, BeforeValidator(_unwrapped)]
AnyJson: TypeAlias = Annotated[JsonValue, AfterValidator(_finite)]
Instant: TypeAlias = Annotated[datetime, AfterValidator(_in_utc)]
Seconds: TypeAlias = Annotated[float, Strict()]
WholeNumber: TypeAlias = Annotated[StrictInt, BeforeValidator(_whole)]
"""A strict integer that may be written as 3.0, since some clients have no other numbers."""
MaxAttempts: TypeAlias = Annotated[WholeNumber, Field(ge=1, le=2**31 - 1)]
LeaseId: TypeAlias = Annotated[WholeNumber, Field(ge=1, le=MAX_LEASE_ID)]
Timeout: TypeAlias = Annotated[Seconds, Field(ge=0.1, le=MAX_SECONDS)]


class Body(BaseModel):
    """A request body: its fields in camelCase, and no others."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid")


class Created(Body):
    """The fields that new jobs, stages and tasks share."""

    data: Payload
    user_metadata: Payload = {}
    traceparent: Annotated[str, StringConstraints(pattern=f"^{TRACEPARENT.pattern}$")] | None = None
    tracestate: Annotated[Text, StringConstraints(max_length=MAX_TRACESTATE_LENGTH)] | None = None

    def identity(self) -> dict[str, Any]:
        """Return everything except the trace contexts, to compare it with a repeated request."""
        return self.model_dump(exclude={"traceparent", "tracestate"})


class PlainJobBody(Created):
    """A new job, in part A."""

    name: Name
    priority: Priority = Priority.MEDIUM


class PlainStageBody(Created):
    """A new stage, in part A."""

    type: NewStageTypeName
    start_as_waiting: StrictBool = False


class PlainTaskBody(Created):
    """A new task, in part A."""

    max_attempts: MaxAttempts = DEFAULT_MAX_ATTEMPTS


class RetryBody(Body):
    """The retry policy: how long a task waits after a failed attempt."""

    strategy: Literal["fixed", "exponential"] = "exponential"
    delay_seconds: Annotated[Seconds, Field(ge=0, le=MAX_SECONDS)] = 1
    factor: Annotated[StrictFloat, Field(ge=1, le=MAX_FACTOR)] = 2
    max_delay_seconds: Annotated[Seconds | None, Field(ge=0, le=MAX_SECONDS)] = None
    jitter: Annotated[StrictFloat, Field(ge=0, le=1)] = 0

    def policy(self) -> dict[str, Any]:
        """Return the policy as it is stored and returned, with its defaults."""
        if self.strategy == "fixed":
            return self.model_dump(by_alias=True, include={"strategy", "delay_seconds", "jitter"})
        longest = max(HOUR, self.delay_seconds) if self.max_delay_seconds is None else self.max_delay_seconds
        return self.model_copy(update={"max_delay_seconds": longest}).model_dump(by_alias=True)


class TaskDefaultsBody(Body):
    """Defaults for the tasks of a stage."""

    max_attempts: MaxAttempts | None = None
    timeout_seconds: Timeout | None = None
    retry: RetryBody | None = None

    def options(self) -> dict[str, Any] | None:
        """Return the defaults that are given, as they are stored and returned; None if there are none."""
        given = {
            "maxAttempts": self.max_attempts,
            "timeoutSeconds": self.timeout_seconds,
            "retry": self.retry and self.retry.policy(),
        }
        return {name: value for name, value in given.items() if value is not None} or None


class StageBody(PlainStageBody):
    """A new stage."""

    weight: Annotated[StrictFloat, Field(ge=0.001, le=1000)] = 1
    task_defaults: TaskDefaultsBody | None = None

    @override
    def identity(self) -> dict[str, Any]:
        options = self.task_defaults and self.task_defaults.options()
        return super().identity() | {"weight": float(self.weight), "task_defaults": _as_floats(options)}


class TaskBody(PlainTaskBody):
    """A new task."""

    timeout_seconds: Timeout | None = None
    retry: RetryBody | None = None
    available_at: Instant | None = None
    delay_seconds: Annotated[Seconds | None, Field(ge=0, le=MAX_SECONDS)] = None

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        if self.available_at is not None and self.delay_seconds is not None:
            raise ValueError("set availableAt or delaySeconds, not both")
        return self

    @override
    def identity(self) -> dict[str, Any]:
        options = super().identity() | {"retry": _as_floats(self.retry and self.retry.policy())}
        if "max_attempts" not in self.model_fields_set:  # its default depends on the stage
            options["max_attempts"] = None
        return options


class TreeStageBody(StageBody):
    """A new stage with its tasks."""

    tasks: list[TaskBody] = []

    @override
    def identity(self) -> dict[str, Any]:
        return super().identity() | {"tasks": [task.identity() for task in self.tasks]}


class JobBody(PlainJobBody):
    """A new job with its stages."""

    stages: Annotated[list[TreeStageBody], Field(max_length=MAX_STAGES)] = []
    unique_key: Annotated[Text, StringConstraints(min_length=1, max_length=200)] | None = None
    unique_for: Literal["running"] | Annotated[Seconds, Field(ge=0.001, le=MAX_SECONDS)] = "running"

    @override
    def identity(self) -> dict[str, Any]:
        stages = [stage.identity() for stage in self.stages] if "stages" in self.model_fields_set else None
        return super().identity() | {"stages": stages, "unique_for": self.unique_key and self.unique_for}


class PriorityBody(Body):
    """The new priority of a job."""

    priority: Priority


class JobStatusBody(Body):
    """The statuses that a client may set on a job."""

    status: Literal["PENDING", "PAUSED", "ABORTED"]


class StageStatusBody(Body):
    """The status that a client may set on a stage."""

    status: Literal["PENDING"]


class TaskStatusBody(Body):
    """The statuses that a client of part A may set on a task."""

    status: Literal["COMPLETED", "FAILED"]


class ClaimBody(Body):
    """A claim."""

    worker_id: NewWorkerId
    limit: Annotated[WholeNumber, Field(ge=1, le=MAX_TASKS)] = 1
    wait_seconds: Annotated[Seconds, Field(ge=0, le=30)] = 0
    lease_seconds: Annotated[Seconds, Field(ge=1, le=3600)] = 30


class ErrorBody(Body):
    """The error of a failed attempt."""

    type: Annotated[Text, StringConstraints(max_length=200)]
    message: Annotated[Text, StringConstraints(max_length=10_000)] = ""
    stack: Annotated[Text, StringConstraints(max_length=50_000)] = ""


class ReportBody(Body):
    """The outcome of an attempt."""

    task_id: Id
    lease_id: LeaseId
    outcome: Literal["COMPLETED", "FAILED", "RELEASED", "SNOOZED"]
    result: AnyJson = None
    error: ErrorBody | None = None
    retryable: StrictBool = True
    delay_seconds: Annotated[Seconds | None, Field(ge=0, le=MAX_SECONDS)] = None
    checkpoint: AnyJson = None


class SettleBody(Body):
    """The reports of one worker; each is validated separately, later."""

    worker_id: WorkerId
    results: Annotated[list[Any], Field(min_length=1, max_length=MAX_TASKS)]


class ProgressBody(Body):
    """The progress of a task."""

    fraction: Annotated[StrictFloat, Field(ge=0, le=1)]
    message: Annotated[Text, StringConstraints(max_length=500)] = ""
    eta_seconds: Annotated[Seconds | None, Field(ge=0, le=MAX_SECONDS)] = None


class RunningBody(Body):
    """A task that a worker is running."""

    task_id: Id
    lease_id: LeaseId
    progress: ProgressBody | None = None
    checkpoint: AnyJson = None


class HeartbeatBody(Body):
    """A heartbeat."""

    stage_types: Annotated[list[StageTypeName], Field(max_length=100)]
    host: Annotated[Text, StringConstraints(max_length=255)] | None = None
    version: Annotated[Text, StringConstraints(max_length=100)] | None = None
    running: Annotated[list[RunningBody], Field(max_length=10_000)] = []
    draining: StrictBool = False


class DrainBody(Body):
    """An order to a worker."""

    drain: StrictBool


def _as_floats(options: object) -> object:
    """Return options whose numbers are all floats: a default may be 1 where a request has 1.0."""
    if isinstance(options, dict):
        return {name: _as_floats(value) for name, value in cast("dict[str, object]", options).items()}
    return float(options) if isinstance(options, int) else options


def duration(seconds: float | None) -> timedelta | None:
    """Return a number of seconds as a duration."""
    return None if seconds is None else timedelta(seconds=seconds)
