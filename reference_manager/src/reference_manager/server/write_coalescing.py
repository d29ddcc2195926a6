"""Write coalescing: one system call for each response.

uvicorn writes headers and body separately, and each write is a system call that wakes the client. One write saves
little of the manager's time, but up to 45 % of the CPU time that a small response costs its client.
"""

import asyncio
from collections.abc import Callable
from typing import Any

LARGE = 64 * 1024
"""Bytes. A larger write is sent at once, so that uvicorn notices at once that the client does not keep up."""


class CoalescingTransport:
    """A transport that sends everything written within one turn of the event loop with one write.

    Args:
        transport: The transport that sends.
        loop: The event loop.
        on_pause: Called when reading from the client is paused.
        on_resume: Called when reading from the client is resumed.
        on_sent: Called when data has been sent.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        on_pause: Callable[[], None],
        on_resume: Callable[[], None],
        on_sent: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._on_pause = on_pause
        self._on_resume = on_resume
        self._on_sent = on_sent
        self._buffer: list[bytes] = []
        self.written = 0
        """The number of bytes given to the transport so far."""

    def write(self, data: bytes) -> None:
        """Send data at the end of this turn of the event loop, or at once if it is large."""
        if len(data) > LARGE:
            self._flush()
            self._send(data)
            return
        if not self._buffer:
            self._loop.call_soon(self._flush)
        self._buffer.append(data)

    def close(self) -> None:
        """Send the buffered data, then close."""
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        """Close at once. Data that the client has not accepted is lost."""
        self._buffer.clear()
        self._transport.abort()

    def pause_reading(self) -> None:
        """Stop reading from the client."""
        self._on_pause()
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Continue reading from the client."""
        self._on_resume()
        self._transport.resume_reading()

    def _flush(self) -> None:
        if self._buffer:
            data, self._buffer = b"".join(self._buffer), []
            self._send(data)

    def _send(self, data: bytes) -> None:
        # uvloop raises an error if the client has disconnected since the data was buffered.
        if not self._transport.is_closing():
            self.written += len(data)
            self._transport.write(data)
            self._on_sent()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - everything else is the transport's own
        return getattr(self._transport, name)
