"""Lists, read a page at a time. Each page is one statement, one bounded index scan, and a bounded amount of memory.

A list longer than a page is written in pieces. Between pages, the manager holds neither a connection nor a snapshot.
A numbered page counts the whole list, in one statement too.
"""

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Generic, TypeAlias
from uuid import UUID

from reference_manager.domain.commands import KeyT, NumberedRequest, PageRequest

MAX_PAGE_SIZE = 500
"""The maximum number of entities in a page. A page also ends after 1 MiB or 20,000 examined rows (list_pages.sql)."""


@dataclass(frozen=True, slots=True)
class Listing(Generic[KeyT]):
    """A list that has not been read yet."""

    key_type: type[KeyT]
    """The type of its sort keys."""
    read: "Callable[[PageRequest[KeyT]], Awaitable[Page[KeyT]]]"

    async def write(self, page: "Page[KeyT]", *, whole: bool, descending: bool = False) -> AsyncGenerator[str]:
        """Yield the list as JSON, in pieces.

        An empty piece precedes each further page. Sending it waits until the client has accepted the previous pieces,
        so that a page is read only when the client is ready for it.

        Args:
            page: The first page.
            whole: Whether to continue with the following pages. Entities created after the first page was read are left
                out, so that the list ends even if clients create entities faster than it is read.
            descending: Whether the list is read in reverse order.
        """
        until = page.read_at
        yield "["
        separator = ""
        while True:
            async for piece in _written(page.entries, separator):
                yield piece
            separator = separator or "," * bool(page.entries)
            after = page.next
            if after is None or not whole:
                break
            del page  # not kept while the client reads
            yield ""
            page = await self.read(PageRequest(MAX_PAGE_SIZE, after, until, descending))
        yield "]"


@dataclass(frozen=True, slots=True)
class NumberedPage:
    """A part of a list, and the number of entities in the whole list."""

    total: int
    entries: "list[Entry]"

    async def write(self) -> AsyncGenerator[str]:
        """Yield the page as JSON, in pieces."""
        yield f'{{"total":{self.total},"items":['
        async for piece in _written(self.entries):
            yield piece
        yield "]}"


@dataclass(frozen=True, slots=True)
class NumberedListing(Listing[KeyT]):
    """A list whose pages can also be read by their number."""

    read_numbered: Callable[[NumberedRequest], Awaitable[NumberedPage]]


@dataclass(frozen=True, slots=True)
class NestedList:
    """A list that is a member of an entity's JSON."""

    member: str
    """The name of the member."""
    listing: Listing[Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """An entity as JSON, and its nested list if the list is too long to be included in that JSON."""

    body: str
    nested: NestedList | None = None
    reread: "Callable[[], Awaitable[Entry]] | None" = None
    """Reads the entity again, if it was too large for the page."""

    @property
    def complete(self) -> bool:
        """Whether the body is the whole entity."""
        return self.nested is None and self.reread is None

    async def write(self) -> AsyncGenerator[str]:
        """Yield the entity with its nested list as JSON, in pieces."""
        if self.reread is not None:
            async for piece in (await self.reread()).write():
                yield piece
            return
        if self.nested is None:
            yield self.body
            return
        yield f'{self.body[:-1]},"{self.nested.member}":'
        listing = self.nested.listing
        async for piece in listing.write(await listing.read(PageRequest(MAX_PAGE_SIZE)), whole=True):
            yield piece
        yield "}"


@dataclass(frozen=True, slots=True)
class Page(Generic[KeyT]):
    """A part of a list, in order."""

    entries: list[Entry]
    next: KeyT | None = None
    """The sort key after which the next page begins; None at the end of the list."""
    read_at: datetime | None = None
    """When the page was read, by the clock of the database; None at the end of the list."""


Nest: TypeAlias = Callable[[UUID], NestedList]
"""Returns the nested list of the entity with this id."""


async def read_page(
    rows: AsyncIterable[Any], key: Callable[[Any, int], KeyT], nested: Nest | None = None
) -> Page[KeyT]:
    """Convert the rows of a query of list_pages.sql to a page.

    Args:
        rows: The rows.
        key: Builds a sort key from the columns ``major`` and ``minor``.
        nested: Returns the nested lists of the entities. None: the entities have none.
    """
    entries: list[Entry] = []
    async for row in rows:
        if row["body"] is None:
            return Page(entries, key(row["major"], row["minor"]), row["moment"])
        entries.append(to_entry(row, nested))
    return Page(entries)


async def read_numbered_page(
    rows: AsyncIterable[Any], get: Callable[[UUID], Awaitable[Entry]], nested: Nest | None = None
) -> NumberedPage:
    """Convert the rows of a query of list_numbered.sql to a page.

    Args:
        rows: The rows.
        get: Reads the entity with this id.
        nested: See ``read_page``.
    """
    found = [row async for row in rows]
    entries = [
        Entry("", reread=partial(get, row["parent"])) if row["body"] is None else to_entry(row, nested)
        for row in found[1:]
    ]
    return NumberedPage(found[0]["total"], entries)


async def _written(entries: Sequence[Entry], separator: str = "") -> AsyncGenerator[str]:
    """Yield entities as JSON, in pieces, with the separator before the first one."""
    pieces: list[str] = []
    for entry in entries:
        pieces.append(separator)
        separator = ","
        if entry.complete:
            pieces.append(entry.body)
        else:
            yield "".join(pieces)
            pieces.clear()
            async for piece in entry.write():
                yield piece
    yield "".join(pieces)


def to_entry(row: Any, nested: Nest | None) -> Entry:  # noqa: ANN401 - rows are untyped
    """Convert a row with the columns ``body`` and ``parent`` to an entry."""
    if nested is None or row["parent"] is None:
        return Entry(row["body"])
    return Entry(row["body"], nested(row["parent"]))
