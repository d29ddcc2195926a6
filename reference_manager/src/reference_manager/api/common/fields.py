"""Types of fields in requests, and the base classes of bodies."""

import math
import re
from datetime import UTC, datetime
from typing import Annotated, Any, TypeAlias
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    Strict,
    StrictInt,
    StringConstraints,
)
from pydantic.alias_generators import to_camel

from reference_manager.domain.commands import Trace

TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
MAX_TRACESTATE_LENGTH = 512
MAX_INTEGER = 2**31 - 1
MAX_LEASE_ID = 2**53 - 1
"""The largest integer that every JSON parser represents exactly."""
YEAR = 365 * 86_400
"""Seconds."""
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def _whole(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _canonical(value: Any) -> Any:  # noqa: ANN401 - any value of the path or the query
    """Accept only the canonical form of a UUID; Python also parses UUIDs without hyphens or in braces."""
    if not _UUID.fullmatch(str(value)):
        raise ValueError("must be a UUID such as 019a2f5e-7c1b-7d3a-9e4f-5b6c7d8e9f00")
    return value


def finite(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Reject numbers such as 1e999: they are valid JSON, but cannot be stored and returned."""
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
    """Unwrap ``{"userMetadata": {…}}``, which some clients send instead of the metadata itself."""
    if isinstance(body, dict) and list(body) == ["userMetadata"] and isinstance(body["userMetadata"], dict):  # pyright: ignore[reportUnknownArgumentType]
        return body["userMetadata"]  # pyright: ignore[reportUnknownVariableType]
    return body  # pyright: ignore[reportUnknownVariableType]


def _iso_text(value: Any) -> Any:  # noqa: ANN401 - any value of the query
    if not re.match(r"\d{4}-\d{2}-\d{2}", str(value)):
        raise ValueError("must be an ISO 8601 date and time, such as 2026-01-31T12:00:00Z")
    return value


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except OverflowError as error:
        raise ValueError("is outside the years 1 to 9999") from error


Id: TypeAlias = Annotated[UUID, BeforeValidator(_canonical)]
Text: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]
"""Text without NUL, which PostgreSQL cannot store as text. Payloads are JSON and may contain it."""
Name: TypeAlias = Annotated[Text, StringConstraints(min_length=2, max_length=50)]
NameFilter: TypeAlias = Annotated[Text, StringConstraints(max_length=50)]
StageTypeName: TypeAlias = Annotated[Text, StringConstraints(min_length=1, max_length=50)]
WHOLE = BeforeValidator(_whole)
"""The last annotation of a strict integer. It accepts 3.0, since some clients have no other numbers."""
Payload: TypeAlias = Annotated[dict[str, Any], AfterValidator(finite)]
Metadata: TypeAlias = Annotated[Payload, BeforeValidator(_unwrapped)]
Traceparent: TypeAlias = Annotated[str, StringConstraints(pattern=f"^{TRACEPARENT.pattern}$")]
Tracestate: TypeAlias = Annotated[Text, StringConstraints(max_length=MAX_TRACESTATE_LENGTH)]
Instant: TypeAlias = Annotated[datetime, BeforeValidator(_iso_text), AfterValidator(_in_utc)]
Moment: TypeAlias = Annotated[
    Instant, Field(description="A date alone means its start; a time without an offset is UTC.")
]
Seconds: TypeAlias = Annotated[float, Strict()]
WorkerId: TypeAlias = Annotated[Text, StringConstraints(min_length=1, max_length=200)]
Checkpoint: TypeAlias = Annotated[
    JsonValue,
    AfterValidator(finite),
    Field(description="State for the next attempt. Null leaves the stored checkpoint unchanged."),
]
LeaseId: TypeAlias = Annotated[StrictInt, Field(ge=1, le=MAX_LEASE_ID), WHOLE]


class Body(BaseModel):
    """A request body: camelCase names; unknown fields are rejected."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid")


class Traced(Body):
    """A body that may set the trace context of its entity; the default is the trace context of the request."""

    traceparent: Traceparent | None = None
    tracestate: Tracestate | None = None

    def trace(self, of_request: Trace) -> Trace:
        """Return the trace context of the created entity."""
        if self.traceparent is None:
            return of_request
        return Trace(self.traceparent, self.tracestate)
