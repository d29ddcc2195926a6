"""An HTTP proxy between clients and managers that loses answers, replaces them, and delivers requests twice."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from enum import StrEnum
from itertools import cycle
from typing import Any, TypeAlias

import httpx2

from tests.support.plain_http import NO_CERTIFICATES


class Fate(StrEnum):
    """What happens to a request that creates something."""

    DELIVERED = "delivered"
    LOST = "the request is lost"
    ANSWER_LOST = "the connection closes before the answer"
    ANSWER_REPLACED = "502 instead of the answer"
    DELIVERED_TWICE = "both managers get it at the same time"
    REPEATED = "the other manager gets it again, and then the answer is lost"


Forwarded: TypeAlias = Coroutine[Any, Any, httpx2.Response]
"""The answer of a manager."""
HONEST_AFTER = 3
"""The number of lies about one request, after which it is delivered: the SDK gives up after as many retries."""


class LyingProxy:
    """Forwards each request to the managers in turn.

    Args:
        urls: The addresses of the managers.
        choose: Chooses the fate of a request that creates something.
    """

    def __init__(self, urls: Sequence[str], choose: Callable[[], Fate]) -> None:
        self._urls = cycle(urls)
        self._choose = choose
        self._lies = Counter[bytes]()
        self.fates = Counter[Fate]()
        self.url = ""

    @asynccontextmanager
    async def listen(self) -> AsyncGenerator[None]:
        """Listen until the end of the ``async with`` block."""
        async with httpx2.AsyncClient(timeout=30, verify=NO_CERTIFICATES) as http:

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                with suppress(EOFError, OSError):
                    while await self._serve(reader, writer, http):
                        pass
                writer.transport.abort()

            server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=2**20)
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            yield
            server.close()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, http: httpx2.AsyncClient
    ) -> bool:
        """Serve one request. Return whether the connection stays open."""
        head = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        method, path, _ = head[0].decode().split(" ")
        headers = [(name, value.strip()) for name, _, value in (line.partition(b":") for line in head[1:] if line)]
        length = next((int(value) for name, value in headers if name.lower() == b"content-length"), 0)
        body = await reader.readexactly(length)

        async def forward() -> httpx2.Response:
            return await http.request(method, next(self._urls) + path, headers=headers, content=body)

        answer = await self._answer(self._fate(method, headers), forward)
        if answer is None:
            return False
        content = answer.content
        kept = [(name, value) for name, value in answer.headers.raw if name.lower() != b"content-length"]
        lines = [b"HTTP/1.1 %d Any" % answer.status_code, *(b"%b: %b" % pair for pair in kept)]
        writer.write(b"\r\n".join([*lines, b"Content-Length: %d" % len(content), b"", content]))
        await writer.drain()
        return True

    def _fate(self, method: str, headers: Sequence[tuple[bytes, bytes]]) -> Fate:
        key = next((value for name, value in headers if name.lower() == b"idempotency-key"), None)
        if method != "POST" or key is None:
            return Fate.DELIVERED
        fate = Fate.DELIVERED if self._lies[key] == HONEST_AFTER else self._choose()
        self._lies[key] += fate not in {Fate.DELIVERED, Fate.DELIVERED_TWICE}
        self.fates[fate] += 1
        return fate

    @staticmethod
    async def _answer(
        fate: Fate, forward: Callable[[], Coroutine[Any, Any, httpx2.Response]]
    ) -> httpx2.Response | None:
        match fate:
            case Fate.LOST:
                return None
            case Fate.ANSWER_LOST:
                await forward()
                return None
            case Fate.ANSWER_REPLACED:
                await forward()
                return httpx2.Response(502, html="<h1>Bad Gateway</h1>")
            case Fate.DELIVERED_TWICE:
                first, second = await asyncio.gather(forward(), forward())
                assert (first.status_code, first.content) == (second.status_code, second.content)
                return second
            case Fate.REPEATED:
                first, second = await forward(), await forward()
                assert (first.status_code, first.content) == (second.status_code, second.content)
                return None
            case Fate.DELIVERED:
                return await forward()
