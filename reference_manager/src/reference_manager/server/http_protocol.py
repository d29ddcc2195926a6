"""The HTTP protocol: uvicorn's, with coalesced writes, and limits for slow clients and large heads."""

import asyncio
from typing import Any

from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from reference_manager.api.common.disconnects import CLIENT_STATE, Client
from reference_manager.api.common.errors import ErrorResponse, head_too_large, problem
from reference_manager.server.admission import SURPLUS_STATE
from reference_manager.server.connections import Connections
from reference_manager.server.deadlines import RequestDeadline, ResponseDeadline
from reference_manager.server.write_coalescing import CoalescingTransport

MAX_HEAD_SIZE = 64 * 1024
"""Bytes. Trailers and chunk extensions have the same limit."""
MAX_BEHIND = 64 * 1024
"""Bytes that a client may send while it waits for the response to a claim."""
MAX_PIPELINED = 100
"""Requests that a client may send before the response to an earlier one."""


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with coalesced writes, deadlines for the client, and a limit for the head of a request.

    Args:
        connections: The connections of this manager.
        app_state: The state in the ASGI scope of each request.
        uvicorn: The other arguments that uvicorn passes to a protocol.
    """

    def __init__(self, connections: Connections, *, app_state: dict[str, Any], **uvicorn: Any) -> None:  # noqa: ANN401 - uvicorn's own
        self._connections = connections
        self._is_surplus = connections.are_full
        self._client = Client(self._keep_reading)
        self._behind = 0
        """Bytes received while the client waited for the response to an earlier request."""
        state = {**app_state, SURPLUS_STATE: self._is_surplus, CLIENT_STATE: self._client}
        super().__init__(app_state=state, **uvicorn)
        self._in_head = False
        self._unparsed = 0
        """Bytes received since the parser last recognised something, not counting the chunk in which it did."""
        self._request = RequestDeadline(connections.client_timeout, self.loop.time())
        self._response = ResponseDeadline(self.loop.time())

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start a connection."""
        self._transport = CoalescingTransport(
            transport, self.loop, self._request.pause, self._resume, self._client.sent
        )
        super().connection_made(self._transport)  # type: ignore[arg-type]
        self._connections.add(self, surplus=self._is_surplus)

    def connection_lost(self, exc: Exception | None) -> None:
        """End a connection."""
        self._connections.discard(self)
        super().connection_lost(exc)
        self._client.disconnect()

    def data_received(self, data: bytes) -> None:
        """Parse a chunk. The parser itself has no limit for the head of a request, for trailers or chunk extensions."""
        if self.is_waiting_for_request():
            self._request.begin_head(self.loop.time())
        self._unparsed += len(data)
        self._behind = self._behind + len(data) if self._client.is_waiting() else 0
        super().data_received(data)
        if self._client.is_waiting():
            self._keep_reading()
        if self._unparsed > MAX_HEAD_SIZE and not self.transport.is_closing():
            if self._in_head:
                self.refuse(problem(head_too_large(MAX_HEAD_SIZE)))
            else:
                self.abort()

    def on_message_begin(self) -> None:
        """Start a head. An exception ends the parsing of the chunk."""
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ValueError("too many pipelined requests")
        self._in_head = True
        self._unparsed = 0
        self._request.begin_head(self.loop.time())
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header. Trailers are ignored."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """End a head, and wait for the body."""
        self._in_head = False
        self._unparsed = 0
        self._request.begin_body(self.loop.time())
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Receive a part of a body. Once the request has been answered, its deadline is no longer extended."""
        self._unparsed = 0
        if not self.cycle.response_complete:
            self._request.receive_body(len(body), self.loop.time())
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request, and its deadline."""
        self._unparsed = 0
        self._request.complete()
        super().on_message_complete()

    def is_waiting_for_request(self) -> bool:
        """Return whether no request is in progress."""
        cycle: Any = self.cycle
        return cycle is None or cycle.response_complete

    def is_overdue(self, now: float) -> bool:
        """Return whether the client took too long to send its request."""
        return self._request.is_over(now)

    def unsent(self) -> int:
        """Return the number of bytes that the client has not accepted yet."""
        return self._transport.get_write_buffer_size()

    def stalled(self, now: float) -> float:
        """Return for how many seconds the client has not accepted any of these bytes."""
        return self._response.stalled(self._transport.written, self.unsent(), now)

    def abort(self) -> None:
        """Close the connection at once. The client notices that the response is incomplete."""
        self._transport.abort()

    def _keep_reading(self) -> None:
        """Read on while a client waits, although it has sent further requests. Their size is limited instead."""
        if self._behind > MAX_BEHIND:
            self.abort()
        else:
            self.flow.resume_reading()

    def _resume(self) -> None:
        self._request.resume(self.loop.time())

    def send_400_response(self, msg: str) -> None:
        """Answer a request that is not valid HTTP, unless the client still waits for another answer."""
        if self.is_waiting_for_request():
            self.refuse(problem(ErrorResponse(400, "VALIDATION_ERROR", msg)))
        else:
            self.abort()

    def refuse(self, response: Response) -> None:
        """Send an error and close the connection."""
        parts = [STATUS_LINE[response.status_code]]
        for name, value in (*self.server_state.default_headers, *response.raw_headers, (b"connection", b"close")):
            parts += (name, b": ", value, b"\r\n")
        self.transport.write(b"".join((*parts, b"\r\n", response.body)))
        self.transport.close()
