"""Pagination: one page of a list with a link to the next, a page by its number, or the whole list as a stream."""

from collections.abc import AsyncIterable
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeAlias
from urllib.parse import quote, urlencode

from fastapi import Depends, Query
from fastapi.exceptions import RequestValidationError
from pydantic import BeforeValidator, Field, StringConstraints
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from reference_manager.api.common.cursors import MAX_CURSOR_LENGTH, decode_cursor, encode_cursor
from reference_manager.api.common.errors import ErrorResponse
from reference_manager.api.common.fields import MAX_INTEGER
from reference_manager.api.common.protocol import PART_B
from reference_manager.api.common.responses import json_response, openapi_responses
from reference_manager.domain.commands import KeyT, NumberedRequest, PageRequest
from reference_manager.engine.records.pages import MAX_PAGE_SIZE, Entry, Listing, NumberedListing

MAX_NUMBERED_PAGE_SIZE: Final = 100
NUMBERED_PAGE_SIZE: Final = 10
"""The size of a numbered page without ``page_size``."""
HISTORY_PAGE_SIZE: Final = 100
"""The size of a page of attempts or status changes without ``limit``."""


def _digits(largest: int) -> BeforeValidator:
    """Reject the other forms of a number that FastAPI accepts, such as ``1_0`` and ``5.0``."""

    def check(value: str) -> str:
        if not (value.isascii() and value.isdigit()):
            raise ValueError(f"must be a whole number from 1 to {largest}")
        return value

    return BeforeValidator(check)


def _limit(default: str) -> Any:  # noqa: ANN401 - as FastAPI takes it
    description = f"The maximum number of entities in the response. Without it, the response has {default}."
    return Query(description=description, json_schema_extra=PART_B)


_Limit: TypeAlias = Annotated[int, Field(ge=1, le=MAX_PAGE_SIZE), _digits(MAX_PAGE_SIZE)]
Limit: TypeAlias = Annotated[_Limit | None, _limit("all of them")]
HistoryLimit: TypeAlias = Annotated[_Limit, _limit(f"up to {HISTORY_PAGE_SIZE}")]
Cursor: TypeAlias = Annotated[
    Annotated[str, StringConstraints(pattern=rf"^[A-Za-z0-9_-]{{1,{MAX_CURSOR_LENGTH}}}$")] | None,
    Query(
        description="Where to continue, from the Link header of the previous page; by default, at the beginning.",
        json_schema_extra=PART_B,
    ),
]
Order: TypeAlias = Annotated[
    Literal["asc", "desc"],
    Query(description="`desc` reverses the order of the list: newest first.", json_schema_extra=PART_B),
]
PageNumber: TypeAlias = Annotated[
    Annotated[int, Field(ge=1, le=MAX_INTEGER), _digits(MAX_INTEGER)] | None,
    Query(
        description="The number of the page. With this or `page_size`, the response is an object with the `items` of "
        "one page and the `total` number of matching entities. Not together with `limit` or `cursor`.",
        json_schema_extra=PART_B,
    ),
]
PageSize: TypeAlias = Annotated[
    Annotated[int, Field(ge=1, le=MAX_NUMBERED_PAGE_SIZE), _digits(MAX_NUMBERED_PAGE_SIZE)] | None,
    Query(
        description=f"The number of entities in a numbered page; {NUMBERED_PAGE_SIZE} if only `page` is given.",
        json_schema_extra=PART_B,
    ),
]


@dataclass(frozen=True, slots=True)
class ListQuery:
    """The page that a request asks for."""

    request: Request
    limit: Limit = None
    cursor: Cursor = None
    order: Order = "asc"


@dataclass(frozen=True, slots=True)
class HistoryQuery(ListQuery):
    """The page of attempts or status changes that a request asks for."""

    limit: HistoryLimit = HISTORY_PAGE_SIZE


@dataclass(frozen=True, slots=True)
class NumberedQuery(ListQuery):
    """The page that a request asks for, possibly by its number."""

    page: PageNumber = None
    page_size: PageSize = None


PageQuery: TypeAlias = Annotated[ListQuery, Depends(ListQuery)]
HistoryPageQuery: TypeAlias = Annotated[HistoryQuery, Depends(HistoryQuery)]
NumberedPageQuery: TypeAlias = Annotated[NumberedQuery, Depends(NumberedQuery)]

_LINK = {
    "description": '`<…>; rel="next"`: the next page. Missing on the last page, and in a response without a limit.',
    "schema": {"type": "string"},
}

_NO_FILTERS = frozenset({"limit", "cursor", "should_return_stages", "should_return_tasks"})
"""Query parameters that may change between pages, because they do not select entities."""


def openapi_list_responses(
    entity: type[Any], *errors: ErrorResponse, numbered: type[Any] | None = None
) -> dict[int | str, dict[str, Any]]:
    """Build the ``responses`` of a route that lists these entities.

    Args:
        entity: The entities.
        errors: See ``openapi_responses``.
        numbered: A numbered page of these entities. None: the route has no numbered pages.
    """
    responses = openapi_responses({200: list[entity] | numbered if numbered else list[entity]}, *errors)
    responses[200]["headers"] = {"Link": _LINK}
    return responses


async def list_response(query: ListQuery, listing: Listing[KeyT]) -> Response:
    """Send a page or the whole list. An error after the first page closes the connection before the end of the body."""
    identity = _identity(query.request)
    after = None if query.cursor is None else _decoded(query.cursor, identity, listing.key_type)
    descending = query.order == "desc"
    page = await listing.read(PageRequest(query.limit or MAX_PAGE_SIZE, after, descending=descending))
    headers: dict[str, str] = {}
    if query.limit is not None and page.next is not None:
        headers["Link"] = _link(query.request, encode_cursor(page.next, identity))
    whole = query.limit is None and page.next is not None
    at_once = not whole and all(entry.complete for entry in page.entries)
    return await _send(listing.write(page, whole=whole, descending=descending), at_once=at_once, headers=headers)


async def numbered_response(query: NumberedQuery, listing: NumberedListing[KeyT]) -> Response:
    """Send a page by its number if the request has one; otherwise as ``list_response``."""
    if query.page is None and query.page_size is None:
        return await list_response(query, listing)
    for name, value in (("limit", query.limit), ("cursor", query.cursor)):
        if value is not None:
            raise _invalid(name, "cannot be combined with page and page_size")
    size = query.page_size or NUMBERED_PAGE_SIZE
    skipped = ((query.page or 1) - 1) * size
    page = await listing.read_numbered(NumberedRequest(skipped, size, descending=query.order == "desc"))
    return await _send(page.write(), at_once=all(entry.complete for entry in page.entries))


async def entity_response(entry: Entry) -> Response:
    """Send one entity with any number of nested entities."""
    return await _send(entry.write(), at_once=entry.complete)


async def _send(pieces: AsyncIterable[str], *, at_once: bool, headers: dict[str, str] | None = None) -> Response:
    if at_once:
        return json_response("".join([piece async for piece in pieces]), headers=headers)
    return StreamingResponse(pieces, headers=headers, media_type="application/json")


def _identity(request: Request) -> str:
    """Return what identifies a list: its path, its filters and its order, in a fixed sequence."""
    filters = sorted(
        pair for pair in request.query_params.multi_items() if pair[0] not in _NO_FILTERS and pair != ("order", "asc")
    )
    return f"{request.url.path}?{urlencode(filters)}"


def _decoded(cursor: str, identity: str, key_type: type[KeyT]) -> KeyT:
    try:
        return decode_cursor(cursor, identity, key_type)
    except ValueError as error:
        raise _invalid("cursor", str(error)) from error


def _invalid(name: str, message: str) -> RequestValidationError:
    return RequestValidationError([{"type": "page", "loc": ("query", name), "msg": message}])


def _link(request: Request, cursor: str) -> str:
    """Build the Link header: the same request with this cursor.

    The link is a path, not a whole URL, because the manager does not know its public address, least of all behind a
    proxy.
    """
    others = [pair for pair in request.query_params.multi_items() if pair[0] != "cursor"]
    return f'<{quote(request.url.path)}?{urlencode([*others, ("cursor", cursor)])}>; rel="next"'
