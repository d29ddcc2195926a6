"""The original manager and its successor, in memory, answer the recorded requests as they were recorded."""

from pathlib import Path

import httpx2
import pytest

from tests.support.original_manager import OriginalManager
from tests.support.replay import ORIGINAL, PAGED, Names, recorded


@pytest.mark.parametrize(("recording", "has_pages"), [(ORIGINAL, False), (PAGED, True)], ids=["original", "successor"])
async def test_the_recorded_answers_are_the_same(recording: Path, has_pages: bool) -> None:  # noqa: FBT001 pytest passes it by name
    """Each of the 42 requests gets the recorded status, header and answer, except for ids and times."""
    theirs, ours = Names(), Names()
    async with httpx2.AsyncClient(base_url="http://original", transport=OriginalManager(has_pages=has_pages)) as http:
        for request in recorded(recording):
            path = theirs.translated(request["path"], ours)
            body = {} if request["body"] is None else {"json": request["body"]}
            response = await http.request(request["method"], path, **body)
            given = response.json() if response.content else None
            assert (response.status_code, response.headers.get("Reason"), ours.plain(given)) == (
                request["status"],
                request["reason_header"],
                theirs.plain(request["answer"]),
            ), request["name"]
