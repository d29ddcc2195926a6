"""Types of the fields that clients send."""

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

from reference_manager.domain.requests import Trace

TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
LONGEST_TRACESTATE = 512
LARGEST_INTEGER = 2**31 - 1
LARGEST_LEASE_ID = 2**53 - 1
"""The largest integer that every JSON parser keeps as it is."""
YEAR = 365 * 86_400
"""Seconds."""
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
WorkerId: TypeAlias = Annotated[Text, StringConstraints(min_length=1, max_length=200)]
Checkpoint: TypeAlias = Annotated[
    JsonValue, AfterValidator(finite), Field(description="What the next attempt is to get. Null: as it is.")
]
LeaseId: TypeAlias = Annotated[StrictInt, Field(ge=1, le=LARGEST_LEASE_ID), WHOLE]


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
