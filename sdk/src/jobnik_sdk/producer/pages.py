"""Lists of any length, read by the page."""

from collections.abc import AsyncGenerator
from typing import Final, TypeVar

from pydantic import BaseModel

from jobnik_sdk.http.client import JobnikClient, read_many

PAGE: Final = 500
"""Entities in one page, as many as the protocol allows."""

EntityT = TypeVar("EntityT", bound=BaseModel)


async def pages(client: JobnikClient, path: str, model: type[EntityT]) -> AsyncGenerator[EntityT]:
    """Yield the entities of the list at `path`, in the memory of one page; of the whole list, without that feature."""
    following: str | None = path
    if "lists" in await client.capabilities():
        following = f"{path}{'&' if '?' in path else '?'}limit={PAGE}"
    while following is not None:
        answer = await client.request("GET", following)
        for entity in read_many(model, answer):
            yield entity
        following = answer.links.get("next", {}).get("url")
