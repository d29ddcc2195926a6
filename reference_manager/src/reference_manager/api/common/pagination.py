"""Lists as answers: a page with a link to the next, or all of it as a stream."""

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
from reference_manager.domain.requests import PageRequest, PlaceT
from reference_manager.engine.records.pages import LARGEST_PAGE, Entry, Listing


def _digits(value: str) -> str:
    """Refuse the other spellings of a number that the framework would take: ``1_0``, ``5.0``."""
    if not (value.isascii() and value.isdigit()):
        raise ValueError(f"must be a whole number from 1 to {LARGEST_PAGE}")
    return value


Limit: TypeAlias = Annotated[
    Annotated[int, Field(ge=1, le=LARGEST_PAGE), BeforeValidator(_digits)] | None,
    Query(description="The most entities in the answer. Without it there are all of them.", json_schema_extra=PART_B),
]
Cursor: TypeAlias = Annotated[
    Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,100}$")] | None,
    Query(
        description="Where to go on, from the Link header of the answer before. Without it the list begins.",
        json_schema_extra=PART_B,
    ),
]


@dataclass(frozen=True, slots=True)
class ListQuery:
    """Which part of a list a request asks for: from the cursor on, as many as the limit says."""

    request: Request
    limit: Limit = None
    cursor: Cursor = None


PageQuery: TypeAlias = Annotated[ListQuery, Depends(ListQuery)]

_LINK = {
    "description": '`<…>; rel="next"`: where the next page is. Missing on the last one, and where there is no limit.',
    "schema": {"type": "string"},
}

_NO_FILTERS = frozenset({"limit", "cursor", "should_return_stages", "should_return_tasks"})
"""Query parameters that may change from one page to the next: they do not say which entities are in the list."""


def openapi_list_responses(entity: type[Any], *refusals: ErrorResponse) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route that lists these entities."""
    responses = openapi_responses({200: list[entity]}, *refusals)
    responses[200]["headers"] = {"Link": _LINK}
    return responses


async def list_response(part: ListQuery, listing: Listing[PlaceT]) -> Response:
    """The part of a list that is asked for. An error behind its first page ends the connection before the answer."""
    name = _name(part.request)
    after = None if part.cursor is None else _place(part.cursor, name, listing.place)
    page = await listing.read(PageRequest(part.limit or LARGEST_PAGE, after))
    headers: dict[str, str] = {}
    if part.limit is not None and page.next is not None:
        headers["Link"] = _link(part.request, encode_cursor(page.next, name))
    whole = part.limit is None and page.next is not None
    in_one_piece = not whole and all(entry.inside is None for entry in page.entries)
    return await _written(listing.write(page, whole=whole), in_one_piece=in_one_piece, headers=headers)


async def entity_response(entry: Entry) -> Response:
    """One entity, however much is in it."""
    return await _written(entry.write(), in_one_piece=entry.inside is None)


async def _written(
    pieces: AsyncIterable[str], *, in_one_piece: bool, headers: dict[str, str] | None = None
) -> Response:
    if in_one_piece:
        body = "".join([piece async for piece in pieces])
        return Response(body.encode(), headers=headers, media_type="application/json")
    return StreamingResponse(pieces, headers=headers, media_type="application/json")


def _name(request: Request) -> str:
    """What tells a list from others: its path and its filters, in any order."""
    filters = sorted(pair for pair in request.query_params.multi_items() if pair[0] not in _NO_FILTERS)
    return f"{request.url.path}?{urlencode(filters)}"


def _place(cursor: str, name: str, kind: type[PlaceT]) -> PlaceT:
    try:
        return decode_cursor(cursor, name, kind)
    except ValueError as error:
        raise RequestValidationError([{"type": "cursor", "loc": ("query", "cursor"), "msg": str(error)}]) from error


def _link(request: Request, cursor: str) -> str:
    """The same request with this cursor.

    A path, not a whole URL: the manager does not know by which name its clients know it, least of all behind a proxy.
    """
    others = [pair for pair in request.query_params.multi_items() if pair[0] != "cursor"]
    return f'<{quote(request.url.path)}?{urlencode([*others, ("cursor", cursor)])}>; rel="next"'
