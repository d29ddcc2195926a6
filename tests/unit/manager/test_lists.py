"""Cursors, lists that are written page by page, and responses without a body."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_manager.api.common.cursors import decode_cursor, encode_cursor
from reference_manager.api.common.methods import Methods
from reference_manager.domain.commands import AgeKey, Key, PageRequest, SerialKey, StageKey, WorkerKey
from reference_manager.engine.records.pages import Entry, Listing, NestedList, Page
from starlette.types import Message, Receive, Scope, Send

NUMBERS = st.integers(min_value=0, max_value=2**63 - 1)
AGES = st.builds(AgeKey, st.datetimes(timezones=st.just(UTC)), NUMBERS)
STAGES = st.builds(StageKey, st.uuids(), NUMBERS)
CHANGES = st.builds(SerialKey, NUMBERS, NUMBERS)
WORKERS = st.builds(WorkerKey, st.text(max_size=200), st.just(0))
KINDS = (AgeKey, StageKey, SerialKey, WorkerKey)
TIMESTAMP = datetime(2026, 1, 31, 12, tzinfo=UTC)


@given(key=AGES | STAGES | CHANGES | WORKERS, listing=st.text())
def test_a_cursor_encodes_its_position(key: Key, listing: str) -> None:
    """Encoding and decoding preserves the position to the microsecond, in characters that need no escaping in a URL."""
    cursor = encode_cursor(key, listing)
    assert decode_cursor(cursor, listing, type(key)) == key
    assert cursor.isascii()
    assert cursor.replace("-", "").replace("_", "").isalnum()


@given(cursor=st.text(), listing=st.text())
def test_an_invented_cursor_is_refused(cursor: str, listing: str) -> None:
    """Any text that is not a cursor of the list is refused."""
    for kind in KINDS:
        with pytest.raises(ValueError, match="is not a cursor of this list"):
            decode_cursor(cursor, listing, kind)


@given(key=AGES | STAGES | CHANGES | WORKERS, data=st.data())
def test_a_changed_cursor_is_refused(key: Key, data: st.DataObject) -> None:
    """A cursor is refused if one letter changes or if it is used for another list."""
    cursor = encode_cursor(key, "a list")
    at = data.draw(st.integers(min_value=0, max_value=len(cursor) - 1))
    letter = data.draw(st.sampled_from("ABCxyz019-_=+/ ").filter(lambda letter: letter != cursor[at]))
    for changed, listing in ((cursor[:at] + letter + cursor[at + 1 :], "a list"), (cursor, "another list")):
        with pytest.raises(ValueError, match="is not a cursor of this list"):
            decode_cursor(changed, listing, type(key))


class NumberList:
    """A list of numbers with three on each page, which records the requested pages."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.requested: list[PageRequest[AgeKey]] = []
        self.listing = Listing(AgeKey, self._read)

    async def _read(self, request: PageRequest[AgeKey]) -> Page[AgeKey]:
        self.requested.append(request)
        start = request.after.seq if request.after else 0
        end = min(start + 3, self._count)
        entries = [Entry(str(number)) for number in range(start, end)]
        return Page(entries, AgeKey(TIMESTAMP, end), TIMESTAMP) if end < self._count else Page(entries)


async def test_a_page_is_read_after_the_previous_one_is_written() -> None:
    """Only one page at a time is in memory, and entries created after the first page was read are left out."""
    numbers = NumberList(7)
    pieces = numbers.listing.write(await numbers.listing.read(PageRequest(3)), whole=True)
    written = ""
    for page in ("[0,1,2", ",3,4,5", ",6]"):
        while not written.endswith(page):
            assert len(numbers.requested) == 1 + written.count(",") // 3
            written += await anext(pieces)
    assert [request.until for request in numbers.requested] == [None, TIMESTAMP, TIMESTAMP]


@pytest.mark.parametrize(("count", "written"), [(0, "[]"), (1, "[0]"), (4, "[0,1,2]")])
async def test_a_single_page_is_written_as_a_list(count: int, written: str) -> None:
    """No further page is read."""
    numbers = NumberList(count)
    pieces = numbers.listing.write(await numbers.listing.read(PageRequest(3)), whole=False)
    assert "".join([piece async for piece in pieces]) == written
    assert len(numbers.requested) == 1


async def test_a_nested_list_is_written_inside_its_entity() -> None:
    """The nested list is the last member of its entity and is written in full, over several pages."""
    inner = NestedList("parts", NumberList(5).listing)
    page: Page[AgeKey] = Page([Entry('{"id":1}', inner), Entry('{"id":2,"parts":[]}'), Entry('{"id":3}', inner)])
    pieces = NumberList(0).listing.write(page, whole=True)
    full = '"parts":[0,1,2,3,4]'
    assert "".join([piece async for piece in pieces]) == f'[{{"id":1,{full}}},{{"id":2,"parts":[]}},{{"id":3,{full}}}]'


async def test_a_head_request_gets_no_body() -> None:
    """The response to HEAD ends at the first piece of the body, and the rest is dropped."""
    sent: list[Message] = []

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(3):
            await send({"type": "http.response.body", "body": b"piece", "more_body": True})

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    await Methods(app, [])({"type": "http", "method": "HEAD", "path": "/"}, receive, send)
    assert sent[1:] == [{"type": "http.response.body", "body": b""}]
