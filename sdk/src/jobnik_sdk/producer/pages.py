"""Lists of any length, read in pages."""

from collections.abc import AsyncGenerator
from typing import Final, TypeVar

from pydantic import BaseModel

from jobnik_sdk.http.client import JobnikClient, read_many

PAGE_SIZE: Final = 500
"""Entities per page: the maximum that the protocol allows."""

EntityT = TypeVar("EntityT", bound=BaseModel)


async def pages(
    client: JobnikClient, path: str, model: type[EntityT], *, limit: int | None = PAGE_SIZE
) -> AsyncGenerator[EntityT]:
    """Yield the entities of the list at `path`.

    One page is in memory at a time. If the manager lacks the feature `lists`, the page is the whole list.

    Args:
        client: The connection to the manager.
        path: The path of the list, with its filters.
        model: The model of the entities.
        limit: The size of a page. None: the manager decides.
    """
    next_page: str | None = path
    if limit is not None and "lists" in await client.capabilities():
        next_page = f"{path}{'&' if '?' in path else '?'}limit={limit}"
    while next_page is not None:
        response = await client.request("GET", next_page)
        for entity in read_many(model, response):
            yield entity
        next_page = response.links.get("next", {}).get("url")
