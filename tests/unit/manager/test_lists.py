"""Cursors, long lists in pieces, and answers without a body."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_manager.api.common.cursors import decode_cursor, encode_cursor
from reference_manager.api.common.methods import Methods
from reference_manager.domain.commands import AgeKey, PageRequest, StageKey
from reference_manager.engine.records.pages import Entry, Listing, NestedList, Page
from starlette.types import Message, Receive, Scope, Send

NUMBERS = st.integers(min_value=0, max_value=2**63 - 1)
AGES = st.builds(AgeKey, st.datetimes(timezones=st.just(UTC)), NUMBERS)
STAGES = st.builds(StageKey, st.uuids(), NUMBERS)
MOMENT = datetime(2026, 1, 31, 12, tzinfo=UTC)


@given(place=AGES | STAGES, listing=st.text())
def test_a_cursor_leads_back_to_its_place(place: AgeKey | StageKey, listing: str) -> None:
    """Encoded and decoded it is the same place to the microsecond, in letters that a URL takes as they are."""
    cursor = encode_cursor(place, listing)
    assert decode_cursor(cursor, listing, type(place)) == place
    assert cursor.isascii()
    assert cursor.replace("-", "").replace("_", "").isalnum()


@given(cursor=st.text(), listing=st.text())
def test_what_was_made_up_is_no_cursor(cursor: str, listing: str) -> None:
    """Any other text is refused, whatever it is."""
    for kind in (AgeKey, StageKey):
        with pytest.raises(ValueError, match="is not a cursor of this list"):
            decode_cursor(cursor, listing, kind)


@given(place=AGES | STAGES, data=st.data())
def test_a_changed_cursor_is_none(place: AgeKey | StageKey, data: st.DataObject) -> None:
    """One other letter, or another list, and it is refused."""
    cursor = encode_cursor(place, "a list")
    at = data.draw(st.integers(min_value=0, max_value=len(cursor) - 1))
    letter = data.draw(st.sampled_from("ABCxyz019-_=+/ ").filter(lambda letter: letter != cursor[at]))
    for changed, listing in ((cursor[:at] + letter + cursor[at + 1 :], "a list"), (cursor, "another list")):
        with pytest.raises(ValueError, match="is not a cursor of this list"):
            decode_cursor(changed, listing, type(place))


class Shelf:
    """A list of numbers, three to a page, that remembers what was asked of it."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.asked: list[PageRequest[AgeKey]] = []
        self.listing = Listing(AgeKey, self._read)

    async def _read(self, part: PageRequest[AgeKey]) -> Page[AgeKey]:
        self.asked.append(part)
        start = part.after.seq if part.after else 0
        end = min(start + 3, self._count)
        entries = [Entry(str(number)) for number in range(start, end)]
        return Page(entries, AgeKey(MOMENT, end), MOMENT) if end < self._count else Page(entries)


async def test_a_page_is_read_when_the_one_before_has_been_taken() -> None:
    """One page at a time is in memory, and what was created after the first was read stays out."""
    shelf = Shelf(7)
    pieces = shelf.listing.write(await shelf.listing.read(PageRequest(3)), whole=True)
    written = ""
    for page in ("[0,1,2", ",3,4,5", ",6]"):
        while not written.endswith(page):
            assert len(shelf.asked) == 1 + written.count(",") // 3
            written += await anext(pieces)
    assert [part.until for part in shelf.asked] == [None, MOMENT, MOMENT]


@pytest.mark.parametrize(("count", "written"), [(0, "[]"), (1, "[0]"), (4, "[0,1,2]")])
async def test_a_page_alone_is_a_list(count: int, written: str) -> None:
    """Nothing behind it is read."""
    shelf = Shelf(count)
    pieces = shelf.listing.write(await shelf.listing.read(PageRequest(3)), whole=False)
    assert "".join([piece async for piece in pieces]) == written
    assert len(shelf.asked) == 1


async def test_a_list_inside_is_written_into_its_entity() -> None:
    """It is the last member, and as long as it is."""
    inner = NestedList("parts", Shelf(5).listing)
    page: Page[AgeKey] = Page([Entry('{"id":1}', inner), Entry('{"id":2,"parts":[]}'), Entry('{"id":3}', inner)])
    pieces = Shelf(0).listing.write(page, whole=True)
    full = '"parts":[0,1,2,3,4]'
    assert "".join([piece async for piece in pieces]) == f'[{{"id":1,{full}}},{{"id":2,"parts":[]}},{{"id":3,{full}}}]'


async def test_the_head_of_a_stream_is_not_its_whole() -> None:
    """HEAD gets the headers and an end at the first piece; what comes behind it is dropped."""
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
