"""The HTTP protocol: uvicorn's, with coalesced writes, limits for slow clients, and the hot path.

uvicorn starts a task for each request, with a scope, two callables and an event. For a claim or a report, that costs
more than the claim or the report itself. On the hot path, such a request becomes a future of the queue, and its
response one write. Every other request, and every unusual one, is left to uvicorn.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from reference_manager.api.common.errors import ErrorResponse, error_response, head_too_large, problem
from reference_manager.api.hot_path import MAX_BODY_SIZE, HotPath, Work
from reference_manager.server.admission import SURPLUS_STATE
from reference_manager.server.connections import Connections
from reference_manager.server.deadlines import RequestDeadline, ResponseDeadline
from reference_manager.server.write_coalescing import CoalescingTransport

OK_HEADERS = [(b"content-type", b"application/json")]
MAX_HEAD_SIZE = 64 * 1024
"""Bytes. Trailers and chunk extensions have the same limit."""
MAX_PIPELINED = 100
"""Requests that a client may send before the response to an earlier one."""


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with coalesced writes, deadlines for the client, and a limit for the head of a request.

    Args:
        connections: The connections of this manager.
        app_state: What the ASGI scope of each request has as its state.
        uvicorn: The other arguments that uvicorn passes to a protocol.
    """

    def __init__(self, connections: Connections, *, app_state: dict[str, Any], **uvicorn: Any) -> None:  # noqa: ANN401 - uvicorn's own
        self._connections = connections
        self._is_surplus = connections.are_full
        super().__init__(app_state={**app_state, SURPLUS_STATE: self._is_surplus}, **uvicorn)
        self._in_head = False
        self._unparsed = 0
        """Bytes received since the parser last found something, without the chunk in which it did."""
        self._request = RequestDeadline(connections.client_timeout, self.loop.time())
        self._response = ResponseDeadline(self.loop.time())

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start a connection."""
        self._transport = CoalescingTransport(transport, self.loop, self._request.pause, self._resume)
        super().connection_made(self._transport)  # type: ignore[arg-type]
        self._connections.add(self, surplus=self._is_surplus)

    def connection_lost(self, exc: Exception | None) -> None:
        """End a connection."""
        self._connections.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse a chunk. The parser itself has no limit for the head of a request, for trailers or chunk extensions."""
        if self.is_waiting_for_request():
            self._request.begin_head(self.loop.time())
        self._unparsed += len(data)
        super().data_received(data)
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
        """End a head."""
        self.end_head()
        super().on_headers_complete()

    def end_head(self) -> None:
        """Wait for the body."""
        self._in_head = False
        self._unparsed = 0
        self._request.begin_body(self.loop.time())

    def on_body(self, body: bytes) -> None:
        """Receive a part of a body. Once the request has been answered, its body has no more time."""
        self._unparsed = 0
        if not self.cycle.response_complete:
            self._request.receive_body(len(body), self.loop.time())
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request."""
        self.end_body()
        super().on_message_complete()

    def end_body(self) -> None:
        """Wait for nothing more of this request."""
        self._unparsed = 0
        self._request.complete()

    def is_waiting_for_request(self) -> bool:
        """Return whether no request is in progress."""
        cycle: Any = self.cycle
        return cycle is None or cycle.response_complete

    def is_overdue(self, now: float) -> bool:
        """Return whether the client took too long to send its request."""
        return self._request.is_over(now)

    def unsent(self) -> int:
        """Return the bytes that wait for the client."""
        return self._transport.get_write_buffer_size()

    def stalled(self, now: float) -> float:
        """Return for how many seconds the client has not accepted any of these bytes."""
        return self._response.stalled(self._transport.written, self.unsent(), now)

    def abort(self) -> None:
        """Close the connection at once. The client notices that the response is incomplete."""
        self._transport.abort()

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
        self.send(response.status_code, response.raw_headers, bytes(response.body), keep_alive=False)

    def send(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes, *, keep_alive: bool) -> None:
        """Send a response with one write."""
        parts = [STATUS_LINE[status]]
        for name, value in (*self.server_state.default_headers, *headers):
            parts += (name, b": ", value, b"\r\n")
        parts.append(b"\r\n" if keep_alive else b"connection: close\r\n\r\n")
        parts.append(body)
        self.transport.write(b"".join(parts))
        if not keep_alive:
            self.transport.close()


class HotPathProtocol(LimitedProtocol):
    """The same protocol with the hot path.

    Args:
        hot_path: Serves claims and reports.
        connections: The connections of this manager.
        uvicorn: The arguments that uvicorn passes to a protocol.
    """

    def __init__(self, hot_path: HotPath, connections: Connections, **uvicorn: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(connections, **uvicorn)
        self._hot_path = hot_path
        self._hot_body: bytearray | None = None
        """The body received so far of a request that may take the hot path."""

    def on_headers_complete(self) -> None:
        """Collect the body if the request may take the hot path; otherwise leave it to uvicorn."""
        if self._may_take_hot_path():
            self.end_head()
            self._hot_body = bytearray()
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Collect the body, up to the limit of the hot path."""
        if self._hot_body is None:
            super().on_body(body)
            return
        self._hot_body += body
        if len(self._hot_body) > MAX_BODY_SIZE:
            self._take_normal_path(self._hot_body)

    def on_message_complete(self) -> None:
        """Serve the request."""
        if self._hot_body is not None:
            self.end_body()
            body = self._hot_body
            parser: Any = self.parser
            work = self._hot_path.serve(parser.get_method(), self.url, self.headers, bytes(body))
            if work is not None:
                self._hot_body = None
                exchange: Any = _Exchange(self, work, keep_alive=parser.should_keep_alive())
                self.cycle = exchange
                return
            self._take_normal_path(body)
        super().on_message_complete()

    def _may_take_hot_path(self) -> bool:
        parser: Any = self.parser
        previous: Any = self.cycle
        return (
            self._hot_path.may_serve(parser.get_method(), self.url)
            and parser.get_http_version() == "1.1"
            and not self.expect_100_continue
            and not parser.should_upgrade()
            # One request at a time: pipelined requests wait in uvicorn's queue.
            and (previous is None or previous.response_complete)
            and not self.flow.write_paused
            and not self._is_surplus
        )

    def _take_normal_path(self, body: bytearray) -> None:
        self._hot_body = None
        super().on_headers_complete()
        if body:
            super().on_body(bytes(body))


class _Exchange:
    """One request on the hot path. It has the attributes of uvicorn's ``RequestResponseCycle``, which it replaces."""

    def __init__(self, protocol: HotPathProtocol, work: Work, *, keep_alive: bool) -> None:
        self.keep_alive = keep_alive
        self.disconnected = False
        self.response_complete = False
        self.message_event = self
        self._protocol = protocol
        self._work = work
        work.future.add_done_callback(self._respond)

    def set(self) -> None:
        """Cancel the work if the client has disconnected; uvicorn calls this at every change of the connection."""
        if self.disconnected:
            self._work.future.cancel()

    def _respond(self, future: asyncio.Future[Any]) -> None:
        if self.disconnected or future.cancelled():
            return
        try:
            body = self._work.entity(future.result()).encode()
        except Exception as error:  # noqa: BLE001 - every error has a response
            response = error_response(error)
            status, body, headers = response.status_code, bytes(response.body), response.raw_headers
        else:
            status, headers = 200, [*OK_HEADERS, (b"content-length", b"%d" % len(body))]
        self._protocol.send(status, headers, body, keep_alive=self.keep_alive)
        self.response_complete = True
        self._protocol.on_response_complete()
