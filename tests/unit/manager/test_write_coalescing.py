"""Coalesced writes to a client that disconnects."""

import asyncio
from typing import Any, cast

import pytest
import uvloop
from reference_manager.server.write_coalescing import LARGE, CoalescingTransport


class LateAnswers(asyncio.Protocol):
    """Writes an answer once the client has disconnected, as a request does that is still being processed.

    Args:
        answer: What to write.
        finished: Set when everything has been written.
    """

    def __init__(self, answer: bytes, finished: asyncio.Event) -> None:
        self._answer = answer
        self._finished = finished

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start a connection."""
        loop = asyncio.get_running_loop()
        # uvloop's transports are not instances of asyncio's classes.
        self.sent = False
        self._transport = CoalescingTransport(
            cast("asyncio.Transport", transport), loop, lambda: None, lambda: None, self._note_sent
        )

    def _note_sent(self) -> None:
        self.sent = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Write the answer."""
        del exc
        self._transport.write(self._answer)
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, self._finished.set)
        loop.call_soon(loop.call_soon, self._check)

    def _check(self) -> None:
        assert not self.sent


@pytest.mark.parametrize("size", [1, LARGE + 1])
def test_an_answer_to_a_client_that_has_disconnected_is_dropped(size: int) -> None:
    """Nothing is raised in a callback of the event loop, which would log an error."""
    errors: list[dict[str, Any]] = []

    async def disconnect() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: errors.append(context))
        finished = asyncio.Event()
        server = await loop.create_server(lambda: LateAnswers(b"x" * size, finished), "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.transport.abort()
        async with asyncio.timeout(10):
            await finished.wait()
        server.close()

    uvloop.run(disconnect())
    assert errors == []
