"""Requests as the fake sees them, and its answers: checked strictly, refused in the protocol's shape."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import quote, urlencode
from uuid import UUID

import httpx2
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from jobnik_sdk.observability.trace_context import NO_TRACE
from jobnik_sdk.testing.fake.bodies import LONGEST_TRACESTATE, TRACEPARENT, Body, Id
from jobnik_sdk.testing.fake.queries import Part, Query
from jobnik_sdk.testing.fake.state import Refused, Trace

BODY_LIMIT: Final = 1024 * 1024
"""Bytes."""
_ID: Final = TypeAdapter[UUID](Id)
_CURSOR: Final = re.compile(r"(\d{1,18})-(\d{1,18})")

BodyT = TypeVar("BodyT", bound=Body)
QueryT = TypeVar("QueryT", bound=Query)
EntityT = TypeVar("EntityT")


@dataclass(frozen=True, slots=True)
class Answer:
    """A success; `body` is JSON, None where there is none."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


MINIMAL: Final = {"Preference-Applied": "return=minimal"}
"""The headers of an answer that is as short as its request prefers."""


class Waiting(NamedTuple):
    """There is no answer yet: ask again when something has changed, or at this moment."""

    until: datetime


@dataclass(frozen=True, slots=True)
class Asked:
    """A request.

    Args:
        request: As it was sent.
        at: When it arrived.
        parameters: What was in the place of the braces in its path.
        unknown: The parameters of queries that nobody knows here, although models have them.
    """

    request: httpx2.Request
    at: datetime
    parameters: Mapping[str, str]
    unknown: Collection[str]

    def id(self) -> UUID:
        """The id in the path."""
        try:
            return _ID.validate_python(self.parameters["id"])
        except ValidationError as error:
            raise invalid(error, "path.id") from None

    def parameter(self, name: str, kind: Any) -> str:  # noqa: ANN401 an annotated string
        """Another parameter of the path."""
        try:
            value: str = _adapter(kind).validate_python(self.parameters[name])
        except ValidationError as error:
            raise invalid(error, f"path.{name}") from None
        return value

    def query(self, model: type[QueryT]) -> QueryT:
        """The query."""
        said: dict[str, str] = {}
        for name, value in self.request.url.params.multi_items():
            if name not in model.model_fields or name in self.unknown:
                raise Refused(400, "VALIDATION_ERROR", f"query.{name}: Unknown parameter")
            if name in said:
                raise Refused(400, "VALIDATION_ERROR", f"query.{name}: Given twice")
            said[name] = value
        try:
            return model.model_validate(said)
        except ValidationError as error:
            raise invalid(error, "query") from None

    def body(self, model: type[BodyT]) -> BodyT:
        """The body."""
        body: BodyT = self._read(model, self._json())
        return body

    def bodies(self, model: type[BodyT]) -> Sequence[BodyT]:
        """The body, which is a list."""
        annotation: Any = list.__class_getitem__(model)
        bodies: Sequence[BodyT] = self._read(annotation, self._json())
        return bodies

    def metadata(self, kind: Any) -> dict[str, Any]:  # noqa: ANN401 an annotated dict
        """The body, which is any object."""
        metadata: dict[str, Any] = self._read(kind, self._json())
        return metadata

    def trace(self) -> Trace:
        """The trace context of the request."""
        traceparent = self.request.headers.get("traceparent", "")
        if not TRACEPARENT.fullmatch(traceparent):
            return Trace(NO_TRACE, None)
        tracestate = self.request.headers.get("tracestate", "")
        return Trace(traceparent, tracestate if 0 < len(tracestate) <= LONGEST_TRACESTATE else None)

    @property
    def prefers_minimal(self) -> bool:
        """Whether it asks for no more than is needed."""
        preferences = self.request.headers.get("Prefer", "").split(",")
        return "return=minimal" in {preference.strip() for preference in preferences}

    def _json(self) -> Any:  # noqa: ANN401 any JSON
        if len(self.request.content) > BODY_LIMIT:
            raise Refused(413, "BODY_TOO_LARGE", f"The body must not be larger than {BODY_LIMIT} bytes")
        if self.request.headers.get("Content-Type", "").partition(";")[0].strip() != "application/json":
            message = "The body must be JSON in UTF-8, with the header Content-Type: application/json"
            raise Refused(415, "UNSUPPORTED_MEDIA_TYPE", message)
        try:
            return from_json(self.request.content, allow_inf_nan=False)
        except ValueError as error:
            raise Refused(400, "VALIDATION_ERROR", f"body: not JSON, {error}") from None

    @staticmethod
    def _read(kind: Any, value: Any) -> Any:  # noqa: ANN401 each caller says which
        try:
            return _adapter(kind).validate_python(value)
        except ValidationError as error:
            raise invalid(error, "body") from None


def page_of(
    asked: Asked,
    part: Part,
    keyed: Sequence[tuple[tuple[int, int], EntityT]],
    write: Callable[[EntityT], dict[str, Any]],
) -> Answer:
    """Return a part of a list, in the order of its keys, with a link to the next part."""
    listed = sorted(keyed, key=lambda pair: pair[0])
    if part.cursor is not None:
        place = _CURSOR.fullmatch(part.cursor)
        if place is None:
            raise Refused(400, "VALIDATION_ERROR", "query.cursor: is none of this list")
        after = (int(place[1]), int(place[2]))
        listed = [pair for pair in listed if pair[0] > after]
    if part.limit is None or len(listed) <= part.limit:
        return Answer(200, [write(entity) for _, entity in listed])
    listed = listed[: part.limit]
    url, last = asked.request.url, listed[-1][0]
    others = [pair for pair in url.params.multi_items() if pair[0] != "cursor"]
    link = f"{quote(url.path)}?{urlencode([*others, ('cursor', f'{last[0]}-{last[1]}')])}"
    return Answer(200, [write(entity) for _, entity in listed], {"Link": f'<{link}>; rel="next"'})


def invalid(error: ValidationError, where: str) -> Refused:
    """Return the refusal for what does not fit its model."""
    return Refused(400, "VALIDATION_ERROR", complaint(error, where))


def complaint(error: ValidationError, where: str = "") -> str:
    """Return where a mistake is and what it is, such as `body.name: String should have at least 2 characters`."""
    mistake = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in (where, *mistake["loc"]) if part != "")
    return f"{place}: {mistake['msg'].removeprefix('Value error, ')}"


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:  # noqa: ANN401 anything that pydantic takes
    return TypeAdapter(kind)
