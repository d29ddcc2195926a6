"""The connections of probes and scrapers. Each serves one request, within a time limit."""

import asyncio
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Final

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from typing_extensions import override

MAX_CONNECTIONS: Final = 512
"""If there are more connections, the oldest one is closed."""
CLIENT_TIMEOUT: Final = 10.0
"""Seconds that a client has to send a request and to read the response."""

_MAX_REQUEST: Final = 65_536
_TEXT: Final = "text/plain; charset=utf-8"
_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger(__name__)


class ProbeResponder:
    """Answers the requests of all connections.

    Metrics are collected in another thread, because a collector of the application may take long. Clients that wait at
    the same time share the result.
    """

    def __init__(self, probes: Mapping[str, Callable[[], str]], loop: asyncio.AbstractEventLoop) -> None:
        self._probes = probes
        self._loop = loop
        self._connections: dict[ProbeConnection, None] = {}
        self._waiting: list[ProbeConnection] = []
        self._collector: asyncio.Task[None] | None = None

    def add(self, connection: "ProbeConnection") -> None:
        """Add an open connection."""
        self._connections[connection] = None
        if len(self._connections) > MAX_CONNECTIONS:
            oldest = next(iter(self._connections))
            self.remove(oldest)
            oldest.abort()

    def remove(self, connection: "ProbeConnection") -> None:
        """Remove a connection that has closed."""
        self._connections.pop(connection, None)

    def close(self) -> None:
        """Close all connections."""
        for connection in list(self._connections):
            connection.abort()

    def respond(self, connection: "ProbeConnection", method: str, path: str) -> None:
        """Answer a request, or let it wait for the metrics."""
        if method not in {"GET", "HEAD"}:
            connection.send(HTTPStatus.METHOD_NOT_ALLOWED, b"method not allowed\n")
        elif path == "/metrics":
            self._waiting.append(connection)
            if self._collector is None:
                self._collector = self._loop.create_task(self._send_metrics())
        elif path not in self._probes:
            connection.send(HTTPStatus.NOT_FOUND, b"not found\n")
        elif reason := self._probes[path]():
            connection.send(HTTPStatus.SERVICE_UNAVAILABLE, f"{reason}\n".encode())
        else:
            connection.send(HTTPStatus.OK, b"ok\n")

    async def _send_metrics(self) -> None:
        while self._waiting:
            clients, self._waiting = self._waiting, []
            try:
                text = await self._collect()
                response = HTTPStatus.OK, text, CONTENT_TYPE_LATEST
            except Exception:  # noqa: BLE001 as below
                _log.exception("metrics cannot be collected")
                response = (
                    HTTPStatus.INTERNAL_SERVER_ERROR,
                    b"metrics cannot be collected; the log has the reason\n",
                    _TEXT,
                )
            for client in clients:
                client.send(*response)
        self._collector = None

    def _collect(self) -> asyncio.Future[bytes]:
        """Collect the metrics in a thread, which does not keep the process from ending."""
        result: asyncio.Future[bytes] = self._loop.create_future()

        def collect() -> None:
            try:
                text = generate_latest()
            except Exception as error:  # noqa: BLE001 collectors of the application may raise anything
                done = partial(result.set_exception, error)
            else:
                done = partial(result.set_result, text)
            with suppress(RuntimeError):  # the server has stopped
                self._loop.call_soon_threadsafe(done)

        threading.Thread(target=collect, name="jobnik-metrics", daemon=True).start()
        return result


class ProbeConnection(asyncio.Protocol):
    """A connection, which serves one request."""

    def __init__(self, responder: ProbeResponder) -> None:
        self._responder = responder
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._request = bytearray()
        self._answered = False
        self._with_body = True

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 what a TCP server creates
        self._transport = transport
        self._timer = asyncio.get_running_loop().call_later(CLIENT_TIMEOUT, self.abort)
        self._responder.add(self)

    @override
    def data_received(self, data: bytes) -> None:
        if self._answered:
            return
        self._request += data
        if len(self._request) > _MAX_REQUEST:
            self.abort()
        elif b"\r\n\r\n" in self._request or b"\n\n" in self._request:
            self._answered = True
            words = self._request.partition(b"\n")[0].decode("latin-1").split()
            if len(words) < 2:  # noqa: PLR2004 a method and a path
                self.send(HTTPStatus.BAD_REQUEST, b"bad request\n")
                return
            self._with_body = words[0] != "HEAD"
            self._responder.respond(self, words[0], words[1].partition("?")[0])

    @override
    def eof_received(self) -> bool:
        return self._answered  # a client that has sent its request may still read the response

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._responder.remove(self)

    def send(self, status: HTTPStatus, body: bytes, content_type: str = _TEXT) -> None:
        """Send the response, and close the connection once the client has read it."""
        if self._transport is None or self._transport.is_closing():
            return
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {content_type}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self._transport.write(head.encode() + body if self._with_body else head.encode())
        self._transport.close()

    def abort(self) -> None:
        """Close the connection at once."""
        if self._transport is not None:
            self._transport.abort()
