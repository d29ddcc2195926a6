"""Types of fields in requests, and the base classes of bodies."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple, TypeAlias, cast
from uuid import UUID

from fastapi import Query
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

from reference_manager.api.common.protocol import PART_B
from reference_manager.domain.commands import MetadataFilter, Trace
from reference_manager.domain.payloads import JsonText, encode

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
    members: Iterable[Any] = (value,)
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value).values()
    elif isinstance(value, list):
        members = cast("list[Any]", value)
    for member in members:
        # Most members are text: a call for each of them would take longer than the rest of the validation.
        if isinstance(member, (dict, list)):
            finite(member)
        elif isinstance(member, float) and not math.isfinite(member):
            raise ValueError("contains a number that is out of range")
    return cast("Any", value)


def _iso_text(value: Any) -> Any:  # noqa: ANN401 - any value of the query
    if not re.match(r"\d{4}-\d{2}-\d{2}", str(value)):
        raise ValueError("must be an ISO 8601 date and time, such as 2026-01-31T12:00:00Z")
    return value


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except OverflowError as error:
        raise ValueError("is outside the years 1 to 9999") from error


def _reachable(value: str) -> str:
    """Reject the two path segments that clients and proxies remove from a URL, even if they are percent-encoded."""
    if value in {".", ".."}:
        raise ValueError("must not be . or .., which cannot be part of a URL")
    return value


def _split(value: Any) -> Any:  # noqa: ANN401 - any value of the query
    """Split each of the values of a parameter at its commas."""
    return [part for text in value for part in str(text).split(",")] if isinstance(value, list) else value  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def _condition(value: str) -> str:
    if ":" not in value:
        raise ValueError("must be a name and a value with a colon between them, such as album:2026")
    return value


def metadata_filter(conditions: Sequence[str] | None) -> MetadataFilter | None:
    """Split each condition at its first colon."""
    return [[name, value] for name, _, value in (one.partition(":") for one in conditions)] if conditions else None


Id: TypeAlias = Annotated[UUID, BeforeValidator(_canonical)]
Text: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]
"""Text without NUL, which PostgreSQL cannot store as text. Payloads are JSON and may contain it."""
Name: TypeAlias = Annotated[Text, StringConstraints(min_length=2, max_length=50)]
NameFilter: TypeAlias = Annotated[Text, StringConstraints(max_length=50)]
StageTypeName: TypeAlias = Annotated[Text, StringConstraints(min_length=1, max_length=50)]
NewStageTypeName: TypeAlias = Annotated[StageTypeName, AfterValidator(_reachable)]
MAX_VALUES = 10
"""The maximum number of values of a parameter in the query."""
SEPARATED = BeforeValidator(_split)
"""The last annotation of a list of values in the query: a repeated parameter, or values separated by commas."""
MetadataFilters: TypeAlias = Annotated[
    Annotated[
        list[Annotated[str, StringConstraints(pattern=r"^[^\x00:]*:[^\x00]*$"), BeforeValidator(_condition)]],
        Field(max_length=MAX_VALUES),
    ]
    | None,
    Query(
        description="`name:value`: a member of `userMetadata` that must have this value: a string, or a number or "
        "boolean as JSON shows it. Repeat the parameter for several conditions, which must all hold.",
        json_schema_extra=PART_B,
    ),
]
WHOLE = BeforeValidator(_whole)
"""The last annotation of a strict integer. It accepts 3.0, since some clients have no other numbers."""
Payload: TypeAlias = Annotated[dict[str, Any], AfterValidator(finite)]
NO_METADATA: Any = Field(default_factory=dict, json_schema_extra={"default": {}})
"""The default of user metadata. pydantic would copy ``{}`` for each body, which takes as long as the validation."""
Traceparent: TypeAlias = Annotated[str, StringConstraints(pattern=f"^{TRACEPARENT.pattern}$")]
Tracestate: TypeAlias = Annotated[Text, StringConstraints(max_length=MAX_TRACESTATE_LENGTH)]
Instant: TypeAlias = Annotated[datetime, BeforeValidator(_iso_text), AfterValidator(_in_utc)]
Moment: TypeAlias = Annotated[
    Instant, Field(description="A date alone means its start; a time without an offset is UTC.")
]
Seconds: TypeAlias = Annotated[float, Strict()]
WorkerId: TypeAlias = Annotated[Text, StringConstraints(min_length=1, max_length=200)]
NewWorkerId: TypeAlias = Annotated[WorkerId, AfterValidator(_reachable)]
Checkpoint: TypeAlias = Annotated[
    JsonValue,
    AfterValidator(finite),
    Field(description="State for the next attempt. Null leaves the stored checkpoint unchanged."),
]
LeaseId: TypeAlias = Annotated[StrictInt, Field(ge=1, le=MAX_LEASE_ID), WHOLE]


class BodyContext(NamedTuple):
    """What the conversion of a body to a command needs besides the body."""

    path: Mapping[str, str]
    """The parameters of the path."""
    trace: Trace
    """The trace context of the request."""
    part_a_only: bool
    """Whether the manager serves only part A."""
    keyed: bool = False
    """Whether the request has an idempotency key."""


class Body(BaseModel):
    """A request body: camelCase names; unknown fields are rejected."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid")

    def convert(self, _context: BodyContext) -> object:
        """Convert the body to a command of the engine. A body that needs no conversion is its own command."""
        return self


def metadata_text(body: dict[str, Any], *, part_a_only: bool) -> JsonText:
    """Encode metadata. Unwrap ``{"userMetadata": {…}}``, which some clients send instead of the metadata itself.

    The original manager, and so a manager that serves only part A, takes every body as it is.
    """
    wrapped: object = body.get("userMetadata")
    is_wrapped = len(body) == 1 and isinstance(wrapped, dict) and not part_a_only
    return encode(cast("object", wrapped) if is_wrapped else body)


class Traced(Body):
    """A body that may set the trace context of its entity; the default is the trace context of the request."""

    traceparent: Traceparent | None = None
    tracestate: Tracestate | None = None

    def trace(self, of_request: Trace) -> Trace:
        """Return the trace context of the created entity."""
        if self.traceparent is None:
            return of_request
        return Trace(self.traceparent, self.tracestate)
