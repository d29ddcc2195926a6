"""A response without end does not fill the memory of the client: it reads up to a limit."""

import gzip
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from socket import create_server
from threading import Thread

import httpx2
import pytest
from jobnik_sdk import AnswerError, JobnikClient, ManagerFailureError, UnexpectedAnswerError
from jobnik_sdk.http import responses

LIMIT = 2**20
"""Bytes."""
WITHOUT_END = "is larger than 1 MiB"


@pytest.fixture(autouse=True)
def _low_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses, "MAX_SIZE", LIMIT)


class Body(httpx2.AsyncByteStream):
    """A body, sent in pieces."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece

    async def aclose(self) -> None:
        """Record the end of the connection."""
        self.closed = True


def spaces() -> Iterator[bytes]:
    """Return a body without end."""
    while True:
        yield b" " * 65_536


async def _ask(status: int, body: Body, **headers: str) -> httpx2.Response:
    transport = httpx2.MockTransport(lambda _request: httpx2.Response(status, stream=body, headers=headers))
    async with JobnikClient("http://manager", transport=transport) as client:
        return await client.request("GET", "/v1/jobs")


@pytest.mark.parametrize(
    ("status", "kind"), [(200, UnexpectedAnswerError), (404, UnexpectedAnswerError), (503, ManagerFailureError)]
)
async def test_a_response_without_end_is_refused(status: int, kind: type[AnswerError]) -> None:
    """The error names the request and the limit; the connection is closed, and the request is not repeated."""
    body = Body(spaces())
    with pytest.raises(kind, match=f"^The response to GET http://manager/v1/jobs {WITHOUT_END}"):
        await _ask(status, body)
    assert body.closed


@pytest.mark.parametrize("excess", [0, 1])
async def test_the_limit_counts_what_is_decompressed(excess: int) -> None:
    """A small body may become large."""
    content = b"[" + b" " * (LIMIT - 2 + excess) + b"]"
    body = Body(iter([gzip.compress(content)]))
    if excess:
        with pytest.raises(UnexpectedAnswerError, match=WITHOUT_END):
            await _ask(200, body, **{"Content-Encoding": "gzip"})
        return
    response = await _ask(200, body, **{"Content-Encoding": "gzip", "Link": "<next>"})
    assert (response.content, response.headers["Link"]) == (content, "<next>")


def test_a_blocking_request_has_the_limit() -> None:
    """The heartbeat and the progress sender read no more than that."""
    with create_server(("127.0.0.1", 0)) as server:

        def send() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                try:
                    while True:
                        connection.sendall(b"10000\r\n" + b" " * 65_536 + b"\r\n")
                except OSError:  # the client has closed the connection
                    return

        sending = Thread(target=send)
        sending.start()
        http = JobnikClient(f"http://127.0.0.1:{server.getsockname()[1]}").blocking(timedelta(seconds=30))
        with pytest.raises(UnexpectedAnswerError, match=WITHOUT_END):
            http.post("/v1/anything", content=b"{}")
        sending.join()
        http.close()
