"""Lists, a page at a time: each is one statement, one index walk of bounded length, one bounded piece of memory.

What is longer than a page is written piece by piece. Between two pages nothing is held: no connection, no snapshot.
"""

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic
from uuid import UUID

from reference_manager.domain.commands import PageRequest, KeyT

MAX_PAGE_SIZE = 500
"""The most entities in a page. It ends earlier after 8 MiB of them, or 20,000 rows looked at: list_pages.sql."""


@dataclass(frozen=True, slots=True)
class Listing(Generic[KeyT]):
    """A list that has yet to be read."""

    place: type[KeyT]
    """What a place in its order is made of."""
    read: "Callable[[PageRequest[KeyT]], Awaitable[Page[KeyT]]]"

    async def write(self, page: "Page[KeyT]", *, whole: bool) -> AsyncGenerator[str]:
        """The list as JSON, in pieces.

        Args:
            page: Where it begins.
            whole: Whether what comes behind this page follows. What is created meanwhile is left out: there is an end
                even where others create faster than this is taken.
        """
        until = page.moment
        yield "["
        separator = ""
        while True:
            pieces: list[str] = []
            for entry in page.entries:
                pieces.append(separator)
                separator = ","
                if entry.inside is None:
                    pieces.append(entry.body)
                else:
                    yield "".join(pieces)
                    pieces.clear()
                    async for piece in entry.write():
                        yield piece
            yield "".join(pieces)
            if page.next is None or not whole:
                break
            page = await self.read(PageRequest(MAX_PAGE_SIZE, page.next, until))
        yield "]"


@dataclass(frozen=True, slots=True)
class NestedList:
    """A list that belongs into an entity's JSON."""

    member: str
    listing: Listing[Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """An entity as JSON, and what is too long to be in it already."""

    body: str
    inside: NestedList | None = None

    async def write(self) -> AsyncGenerator[str]:
        """The whole entity as JSON, in pieces."""
        if self.inside is None:
            yield self.body
            return
        yield f'{self.body[:-1]},"{self.inside.member}":'
        listing = self.inside.listing
        async for piece in listing.write(await listing.read(PageRequest(MAX_PAGE_SIZE)), whole=True):
            yield piece
        yield "}"


@dataclass(frozen=True, slots=True)
class Page(Generic[KeyT]):
    """Some entities of a list, in their order."""

    entries: list[Entry]
    next: KeyT | None = None
    """The place behind which the next page begins; None: the list is at its end."""
    moment: datetime | None = None
    """When this page was read, by the database's clock; None where there is no next."""


async def read_page(
    rows: AsyncIterable[Any], place: Callable[[Any, int], KeyT], inside: Callable[[UUID], NestedList] | None = None
) -> Page[KeyT]:
    """The page that a query of list_pages.sql answered.

    Args:
        rows: Its rows.
        place: Makes a place of a row's ``major`` and ``minor``.
        inside: The list that belongs into the entity with this id.
    """
    entries: list[Entry] = []
    async for row in rows:
        if row["body"] is None:
            return Page(entries, place(row["major"], row["minor"]), row["moment"])
        entries.append(to_entry(row, inside))
    return Page(entries)


def to_entry(row: Any, inside: Callable[[UUID], NestedList] | None) -> Entry:  # noqa: ANN401 - a row has no type of its own
    """The entity of a row with ``body`` and ``parent``."""
    if inside is None or row["parent"] is None:
        return Entry(row["body"])
    return Entry(row["body"], inside(row["parent"]))
