"""The requests and answers of the fake manager: requests are validated strictly, and errors follow the protocol."""

import re
from collections.abc import Callable, Mapping, Sequence
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
from jobnik_sdk.testing.fake.bodies import MAX_TRACESTATE_LENGTH, TRACEPARENT, Body, Id
from jobnik_sdk.testing.fake.queries import (
    NUMBERED_PAGE_SIZE,
    HistoryQuery,
    NumberedQuery,
    PageQuery,
    Query,
    has_several_values,
    is_of_part_b,
)
from jobnik_sdk.testing.fake.state import RefusedRequestError, Trace

BODY_LIMIT: Final = 1024 * 1024
"""Bytes."""
_ID: Final = TypeAdapter[UUID](Id)
_KEY: Final = re.compile("[!-~]([ -~]{0,253}[!-~])?")
_CURSOR: Final = re.compile(r"(\d{1,18})-(\d{1,18})")

BodyT = TypeVar("BodyT", bound=Body)
QueryT = TypeVar("QueryT", bound=Query)
EntityT = TypeVar("EntityT")


@dataclass(frozen=True, slots=True)
class Answer:
    """A success; `body` is JSON, or None for an answer without a body."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


MINIMAL: Final = {"Preference-Applied": "return=minimal"}
"""The headers of an answer to a request that prefers a minimal one."""


class NotYet(NamedTuple):
    """There is no answer yet: serve the request again when something has changed, at the latest at `until`."""

    until: datetime


@dataclass(frozen=True, slots=True)
class Request:
    """A request.

    Args:
        http: The request as it was sent.
        at: When it arrived.
        parameters: The values of the parameters in its path.
        part_a_only: Whether this manager supports only part A of the protocol.
    """

    http: httpx2.Request
    at: datetime
    parameters: Mapping[str, str]
    part_a_only: bool

    def id(self) -> UUID:
        """Return the id in the path."""
        try:
            return _ID.validate_python(self.parameters["id"])
        except ValidationError as error:
            raise _invalid(error, "path.id") from None

    def parameter(self, name: str, kind: Any) -> str:  # noqa: ANN401 an annotated string
        """Return another parameter of the path."""
        try:
            value: str = _adapter(kind).validate_python(self.parameters[name])
        except ValidationError as error:
            raise _invalid(error, f"path.{name}") from None
        return value

    def query(self, model: type[QueryT]) -> QueryT:
        """Return the query."""
        given: dict[str, list[str]] = {}
        for name, value in self.http.url.params.multi_items():
            parameter = model.model_fields.get(name)
            if parameter is None or (self.part_a_only and is_of_part_b(parameter)):
                raise RefusedRequestError(400, "VALIDATION_ERROR", f"query.{name}: Unknown parameter")
            is_list = has_several_values(parameter)
            if (name in given and not is_list) or (self.part_a_only and is_list and (name in given or "," in value)):
                raise RefusedRequestError(400, "VALIDATION_ERROR", f"query.{name}: Given more than once")
            given.setdefault(name, []).append(value)
        lists = {name for name in given if has_several_values(model.model_fields[name])}
        try:
            return model.model_validate({name: value if name in lists else value[0] for name, value in given.items()})
        except ValidationError as error:
            raise _invalid(error, "query") from None

    def body(self, model: type[BodyT]) -> BodyT:
        """Return the body."""
        body: BodyT = self._read(model)
        return body

    def bodies(self, model: type[BodyT]) -> Sequence[BodyT]:
        """Return the items of a body that is a list."""
        annotation: Any = list.__class_getitem__(model)
        bodies: Sequence[BodyT] = self._read(annotation)
        return bodies

    def metadata(self, kind: Any) -> dict[str, Any]:  # noqa: ANN401 an annotated dict
        """Return a body that may be any object."""
        metadata: dict[str, Any] = self._read(kind)
        return metadata

    def trace(self) -> Trace:
        """Return the trace context in the headers."""
        traceparent = self.http.headers.get("traceparent", "")
        if not TRACEPARENT.fullmatch(traceparent) or traceparent == NO_TRACE:
            return Trace(NO_TRACE, None)
        tracestate = self.http.headers.get("tracestate", "")
        is_valid = tracestate.isascii() and 0 < len(tracestate) <= MAX_TRACESTATE_LENGTH
        return Trace(traceparent, tracestate if is_valid else None)

    @property
    def idempotency_key(self) -> str | None:
        """The idempotency key; None if there is none. Part A has none."""
        keys = self.http.headers.get_list("Idempotency-Key")
        if not keys or self.part_a_only:
            return None
        if len(keys) > 1 or not _KEY.fullmatch(keys[0]):
            message = "header.Idempotency-Key: must be one key of 1 to 255 printable ASCII characters"
            raise RefusedRequestError(400, "VALIDATION_ERROR", message)
        return keys[0]

    @property
    def prefers_minimal(self) -> bool:
        """Whether the client prefers a minimal answer (RFC 7240)."""
        for preference in ",".join(self.http.headers.get_list("Prefer")).split(","):
            name, _, value = preference.partition(";")[0].partition("=")
            if name.strip().lower() == "return":  # if the preference is repeated, the first one counts
                return value.strip().strip('"') == "minimal"
        return False

    def _read(self, kind: Any) -> Any:  # noqa: ANN401 each caller knows its type
        try:
            return _adapter(kind).validate_python(self._json())
        except ValidationError as error:
            raise _invalid(error, "body") from None

    def _json(self) -> Any:  # noqa: ANN401 any JSON
        if len(self.http.content) > BODY_LIMIT:
            raise RefusedRequestError(413, "BODY_TOO_LARGE", f"The body must not be larger than {BODY_LIMIT} bytes")
        if self.http.headers.get("Content-Type", "").partition(";")[0].strip() != "application/json":
            message = "The body must be JSON in UTF-8, with the header Content-Type: application/json"
            raise RefusedRequestError(415, "UNSUPPORTED_MEDIA_TYPE", message)
        try:
            return from_json(self.http.content, allow_inf_nan=False)
        except ValueError as error:
            raise RefusedRequestError(400, "VALIDATION_ERROR", f"body: not JSON, {error}") from None


def page_of(
    request: Request,
    query: PageQuery,
    keyed: Sequence[tuple[tuple[int, int], EntityT]],
    write: Callable[[EntityT], dict[str, Any]],
) -> Answer:
    """Return a page of a list, in the order of its keys, with a link to the next page; or a page by its number."""
    descending = query.order == "desc"
    listed = sorted(keyed, key=lambda pair: pair[0], reverse=descending)
    if isinstance(query, NumberedQuery) and (query.page or query.page_size):
        for name, value in (("limit", query.limit), ("cursor", query.cursor)):
            if value is not None:
                message = f"query.{name}: cannot be combined with page and page_size"
                raise RefusedRequestError(400, "VALIDATION_ERROR", message)
        size = query.page_size or NUMBERED_PAGE_SIZE
        skipped = ((query.page or 1) - 1) * size
        items = [write(entity) for _, entity in listed[skipped : skipped + size]]
        return Answer(200, {"total": len(listed), "items": items})
    if query.cursor is not None:
        position = _CURSOR.fullmatch(query.cursor)
        if position is None:
            raise RefusedRequestError(400, "VALIDATION_ERROR", "query.cursor: is not a cursor of this list")
        after = (int(position[1]), int(position[2]))
        listed = [pair for pair in listed if (pair[0] < after if descending else pair[0] > after)]
    if query.limit is None or len(listed) <= query.limit:
        return Answer(200, [write(entity) for _, entity in listed])
    listed = listed[: query.limit]
    url, last = request.http.url, listed[-1][0]
    others = [pair for pair in url.params.multi_items() if pair[0] != "cursor"]
    link = f"{quote(url.path)}?{urlencode([*others, ('cursor', f'{last[0]}-{last[1]}')])}"
    return Answer(200, [write(entity) for _, entity in listed], {"Link": f'<{link}>; rel="next"'})


def history_page(request: Request, listed: list[dict[str, Any]]) -> Answer:
    """Return a page of attempts or status changes, given in the order of time."""
    query = request.query(HistoryQuery)
    return page_of(request, query, [((place, 0), entry) for place, entry in enumerate(listed)], lambda entry: entry)


def validation_message(error: ValidationError, where: str = "") -> str:
    """Return the first mistake with its location, such as `body.name: String should have at least 2 characters`."""
    mistake = error.errors(include_url=False)[0]
    location = ".".join(str(part) for part in (where, *mistake["loc"]) if part != "")
    return f"{location}: {mistake['msg'].removeprefix('Value error, ')}"


def _invalid(error: ValidationError, where: str) -> RefusedRequestError:
    return RefusedRequestError(400, "VALIDATION_ERROR", validation_message(error, where))


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:  # noqa: ANN401 anything that pydantic accepts
    return TypeAdapter(kind)
