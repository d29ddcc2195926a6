"""Probes and metrics over HTTP, from a thread of their own: they answer even while the event loop is blocked."""

import threading
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Final, Self

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from typing_extensions import override

STALLED_AFTER_SECONDS: Final = 60.0


class ProbeServer:
    """Serves /livez, /readyz, /startupz and /metrics while it is entered.

    /livez: the event loop has ticked within 60 s (or has not begun yet). /startupz: it has ticked once. /readyz:
    `is_ready` says so. Each is 200 or 503; nothing here asks the manager. Port 0 takes a free one: see `port`.

    Raises:
        OSError: the port is taken.
    """

    def __init__(self, is_ready: Callable[[], bool], *, host: str, port: int) -> None:
        self._is_ready = is_ready
        self._last_tick: float | None = None
        self._server = ThreadingHTTPServer((host, port), self._handler_class())
        self._server.daemon_threads = True
        # serve_forever looks this often whether it is to end, which every stopping worker waits for.
        serve = partial(self._server.serve_forever, poll_interval=0.05)
        self._thread = threading.Thread(target=serve, name="jobnik-probes", daemon=True)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._server.server_port

    def tick(self) -> None:
        """Note that the event loop turns."""
        self._last_tick = time.monotonic()

    def __enter__(self) -> Self:
        """Serve until the block ends."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop serving and give the port back."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, path: str) -> bool | None:
        match path:
            case "/livez":
                return self._last_tick is None or time.monotonic() - self._last_tick < STALLED_AFTER_SECONDS
            case "/readyz":
                return self._is_ready()
            case "/startupz":
                return self._last_tick is not None
            case _:
                return None

    def _handler_class(self) -> type[BaseHTTPRequestHandler]:
        answer = self._answer

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    self._send(HTTPStatus.OK, generate_latest(), CONTENT_TYPE_LATEST)
                    return
                healthy = answer(path)
                if healthy is None:
                    self._send(HTTPStatus.NOT_FOUND, b"not found\n")
                elif healthy:
                    self._send(HTTPStatus.OK, b"ok\n")
                else:
                    self._send(HTTPStatus.SERVICE_UNAVAILABLE, b"not ok\n")

            def _send(self, status: HTTPStatus, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            @override
            def log_message(self, format: str, *args: object) -> None:
                """Say nothing: a kubelet asks every few seconds."""

        return Handler
