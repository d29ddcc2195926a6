"""An HTTP server that fails now and then, for tests and benchmarks."""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from types import TracebackType
from typing import Self

_ANSWER = b"HTTP/1.1 %d %b\r\nContent-Length: 0\r\n\r\n"


class FlakyServer:
    """Answers 200 or 503 on a free port of 127.0.0.1 for the length of an ``async with`` block.

    Args:
        fails: Returns whether to answer a request for this path with 503.
        delay: Seconds before each answer.

    Attributes:
        url: Its address.
        requests: The paths of all requests, in the order of their arrival.
        failures: The number of requests that were answered with 503.
    """

    def __init__(self, fails: Callable[[str], bool], delay: float = 0.0) -> None:
        self._fails = fails
        self._delay = delay
        self.url = ""
        self.requests: list[str] = []
        self.failures = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1].decode()
                self.requests.append(path)
                status = HTTPStatus.SERVICE_UNAVAILABLE if self._fails(path) else HTTPStatus.OK
                self.failures += status is not HTTPStatus.OK
                await asyncio.sleep(self._delay)
                writer.write(_ANSWER % (status, status.phrase.encode()))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has closed the connection
        finally:
            writer.close()
