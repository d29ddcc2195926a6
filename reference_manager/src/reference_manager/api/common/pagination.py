"""Pagination: one page of a list with a link to the next, or the whole list as a stream."""

from collections.abc import AsyncIterable
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias
from urllib.parse import quote, urlencode

from fastapi import Depends, Query
from fastapi.exceptions import RequestValidationError
from pydantic import BeforeValidator, Field, StringConstraints
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from reference_manager.api.common.cursors import decode_cursor, encode_cursor
from reference_manager.api.common.errors import ErrorResponse
from reference_manager.api.common.protocol import PART_B
from reference_manager.api.common.responses import openapi_responses
from reference_manager.domain.commands import KeyT, PageRequest
from reference_manager.engine.records.pages import MAX_PAGE_SIZE, Entry, Listing


def _digits(value: str) -> str:
    """Reject the other forms of a number that FastAPI accepts, such as ``1_0`` and ``5.0``."""
    if not (value.isascii() and value.isdigit()):
        raise ValueError(f"must be a whole number from 1 to {MAX_PAGE_SIZE}")
    return value


Limit: TypeAlias = Annotated[
    Annotated[int, Field(ge=1, le=MAX_PAGE_SIZE), BeforeValidator(_digits)] | None,
    Query(
        description="The maximum number of entities in the response. Without it, the response has all of them.",
        json_schema_extra=PART_B,
    ),
]
Cursor: TypeAlias = Annotated[
    Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,100}$")] | None,
    Query(
        description="Where to continue, from the Link header of the previous page. Without it, the list starts.",
        json_schema_extra=PART_B,
    ),
]


@dataclass(frozen=True, slots=True)
class ListQuery:
    """The page that a request asks for."""

    request: Request
    limit: Limit = None
    cursor: Cursor = None


PageQuery: TypeAlias = Annotated[ListQuery, Depends(ListQuery)]

_LINK = {
    "description": '`<…>; rel="next"`: the next page. Missing on the last page, and in a response without a limit.',
    "schema": {"type": "string"},
}

_NO_FILTERS = frozenset({"limit", "cursor", "should_return_stages", "should_return_tasks"})
"""Query parameters that may change between pages, because they do not select entities."""


def openapi_list_responses(entity: type[Any], *errors: ErrorResponse) -> dict[int | str, dict[str, Any]]:
    """Build the ``responses`` of a route that lists these entities."""
    responses = openapi_responses({200: list[entity]}, *errors)
    responses[200]["headers"] = {"Link": _LINK}
    return responses


async def list_response(query: ListQuery, listing: Listing[KeyT]) -> Response:
    """Send a page or the whole list. An error after the first page closes the connection before the end of the body."""
    identity = _identity(query.request)
    after = None if query.cursor is None else _decoded(query.cursor, identity, listing.key_type)
    page = await listing.read(PageRequest(query.limit or MAX_PAGE_SIZE, after))
    headers: dict[str, str] = {}
    if query.limit is not None and page.next is not None:
        headers["Link"] = _link(query.request, encode_cursor(page.next, identity))
    whole = query.limit is None and page.next is not None
    at_once = not whole and all(entry.nested is None for entry in page.entries)
    return await _send(listing.write(page, whole=whole), at_once=at_once, headers=headers)


async def entity_response(entry: Entry) -> Response:
    """Send one entity with any number of nested entities."""
    return await _send(entry.write(), at_once=entry.nested is None)


async def _send(pieces: AsyncIterable[str], *, at_once: bool, headers: dict[str, str] | None = None) -> Response:
    if at_once:
        body = "".join([piece async for piece in pieces])
        return Response(body.encode(), headers=headers, media_type="application/json")
    return StreamingResponse(pieces, headers=headers, media_type="application/json")


def _identity(request: Request) -> str:
    """Return what identifies a list: its path and its filters, in a fixed order."""
    filters = sorted(pair for pair in request.query_params.multi_items() if pair[0] not in _NO_FILTERS)
    return f"{request.url.path}?{urlencode(filters)}"


def _decoded(cursor: str, identity: str, key_type: type[KeyT]) -> KeyT:
    try:
        return decode_cursor(cursor, identity, key_type)
    except ValueError as error:
        raise RequestValidationError([{"type": "cursor", "loc": ("query", "cursor"), "msg": str(error)}]) from error


def _link(request: Request, cursor: str) -> str:
    """Build the Link header: the same request with this cursor.

    The link is a path, not a whole URL, because the manager does not know its public address, least of all behind a
    proxy.
    """
    others = [pair for pair in request.query_params.multi_items() if pair[0] != "cursor"]
    return f'<{quote(request.url.path)}?{urlencode([*others, ("cursor", cursor)])}>; rel="next"'
