"""Lists of any length, read in pages."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final, TypeVar

from jobnik_sdk.errors import UnexpectedAnswerError
from jobnik_sdk.http.client import EntityList, JobnikClient, ModelT, read_list
from jobnik_sdk.model.entities import Job, Stage, Task

PAGE_SIZE: Final = 500
"""Entities per page: the maximum that the protocol allows."""

NUMBERED_PAGE_SIZE: Final = 100
"""Entities per page of a list whose pages have numbers: the maximum that such a manager allows."""

MAX_PASSES: Final = 20
"""How often a list whose pages have numbers is read before it counts as incomplete."""

EntityT = TypeVar("EntityT", bound=Job[Any, Any] | Stage[Any, Any, Any, Any, Any] | Task[Any, Any, Any])


async def list_entities(
    client: JobnikClient, path: str, model: type[EntityT], *, limit: int | None = PAGE_SIZE
) -> AsyncGenerator[EntityT]:
    """Yield the entities of the list at `path`, each once.

    One page is in memory at a time. If the manager lacks the feature `lists`, its response is the whole list, or the
    first of several pages with numbers.

    Args:
        client: The connection to the manager.
        path: The path of the list, with its filters.
        model: The model of the entities.
        limit: The size of a page. None: the manager decides.

    Raises:
        UnexpectedAnswerError: some of the entities that the manager counts cannot be read.
    """
    if limit is not None and "lists" in await client.capabilities():
        path = _with_query(path, f"limit={limit}")
    async with aclosing(linked_pages(client, path, model)) as pages:
        async for page in pages:
            for entity in {entity.id: entity for entity in page.items}.values():
                yield entity
            if page.is_page:
                async with aclosing(_other_pages(client, path, model, page)) as others:
                    async for entity in others:
                        yield entity


async def linked_pages(client: JobnikClient, path: str, model: type[ModelT]) -> AsyncGenerator[EntityList[ModelT]]:
    """Yield the page at `path`, and all pages to which the header `Link` leads."""
    next_page: str | None = path
    while next_page is not None:
        response = await client.request("GET", next_page)
        yield read_list(model, response)
        next_page = response.links.get("next", {}).get("url")


async def _other_pages(
    client: JobnikClient, path: str, model: type[EntityT], first: EntityList[EntityT]
) -> AsyncGenerator[EntityT]:
    """Yield the entities of a list whose pages have numbers, except those of the first response, which has no number.

    Such a list may have no stable order, and it may change between two requests. An entity can therefore be on two
    pages, or on none. The list is read again until as many entities were found as the manager counts. If the count
    falls, an entity was deleted and others may have moved, so those found earlier no longer count.
    """
    total = first.total
    yielded = {entity.id for entity in first.items}
    counted = set(yielded)
    for _ in range(MAX_PASSES):
        if total is not None and len(counted) >= total:
            return
        number = read = 0
        while total is None or read < total:
            number += 1
            numbered = _with_query(path, f"page={number}&page_size={NUMBERED_PAGE_SIZE}")
            page = read_list(model, await client.request("GET", numbered))
            if page.total is not None and total is not None and page.total < total:
                counted.clear()
            total, read = page.total, read + len(page.items)
            for entity in page.items:
                counted.add(entity.id)
                if entity.id not in yielded:
                    yielded.add(entity.id)
                    yield entity
            if not page.items:
                break
        if total is None:
            return
    message = f"The list at {path} has {total} entities, but only {len(counted)} of them could be read."
    raise UnexpectedAnswerError(message, status=200, code="INCOMPLETE_LIST")


def _with_query(path: str, query: str) -> str:
    return f"{path}{'&' if '?' in path else '?'}{query}"
