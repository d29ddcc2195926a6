"""Health probes and metrics over HTTP, served by a thread: they respond even if the event loop is blocked."""

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Final, Protocol, Self
from weakref import WeakSet

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from typing_extensions import override

BLOCKED_AFTER_SECONDS: Final = 60.0
"""How long the event loop may be blocked before the liveness probe fails."""


_listeners: Final[WeakSet[socket.socket]] = WeakSet()


def _close_listeners() -> None:
    """Close the listeners in a fork that a handler made: it may outlive the worker, and would keep the port in use."""
    for listener in list(_listeners):
        listener.close()


os.register_at_fork(after_in_child=_close_listeners)


class ObservedWorker(Protocol):
    """The part of a worker that its probes need."""

    @property
    def ready(self) -> bool:
        """Whether the manager has responded and the worker is not stopping."""
        ...

    @property
    def polling(self) -> bool:
        """Whether the worker claims tasks as it should."""
        ...


class Health:
    """The health of a worker's process. Each probe returns a short reason if it fails, or an empty string."""

    def __init__(self) -> None:
        self._last_tick: float | None = None
        self._worker: ObservedWorker | None = None

    def watch(self, worker: ObservedWorker) -> None:
        """Set the worker that the probes check."""
        self._worker = worker

    def tick(self) -> None:
        """Record that the event loop is running. Call it on the event loop at regular intervals."""
        self._last_tick = time.monotonic()

    def live(self) -> str:
        """Fail if a restart would help: the event loop is blocked, or the worker has stopped claiming tasks.

        The state of the manager makes no difference: a failed claim counts as a claim.
        """
        blocked = 0.0 if self._last_tick is None else time.monotonic() - self._last_tick
        if blocked >= BLOCKED_AFTER_SECONDS:
            return f"event loop blocked for {blocked:.0f} s"
        if self._worker is not None and not self._worker.polling:
            return "free slots, but no recent claim"
        return ""

    def ready(self) -> str:
        """Fail until the worker is created and the manager has responded, and while the worker is stopping."""
        if self._worker is None:
            return "worker not created yet"
        return "" if self._worker.ready else "manager not responding, or worker stopping"

    def started(self) -> str:
        """Fail until the event loop of the worker is running."""
        return "" if self._last_tick is not None else "worker not started yet"


class ProbeServer:
    """Serves /livez, /readyz, /startupz and /metrics within a `with` block.

    A probe responds with status 200, or with 503 and the reason.

    Args:
        health: What the probes check.
        host: The address to listen on.
        port: The port to listen on; 0 chooses a free one, which is then in `port`.

    Raises:
        OSError: the port is in use.
    """

    def __init__(self, health: Health, *, host: str, port: int) -> None:
        probes = {"/livez": health.live, "/readyz": health.ready, "/startupz": health.started}
        self._server = ThreadingHTTPServer((host, port), _request_handler(probes))
        self._server.daemon_threads = True
        _listeners.add(self._server.socket)
        # How often serve_forever checks whether to stop; a worker that stops waits for it.
        serve = partial(self._server.serve_forever, poll_interval=0.05)
        self._thread = threading.Thread(target=serve, name="jobnik-probes", daemon=True)

    @property
    def port(self) -> int:
        """The port that the server listens on."""
        return self._server.server_port

    def __enter__(self) -> Self:
        """Start serving."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop serving, and release the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _request_handler(probes: Mapping[str, Callable[[], str]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._send(HTTPStatus.OK, generate_latest(), CONTENT_TYPE_LATEST)
            elif path not in probes:
                self._send(HTTPStatus.NOT_FOUND, b"not found\n")
            elif reason := probes[path]():
                self._send(HTTPStatus.SERVICE_UNAVAILABLE, f"{reason}\n".encode())
            else:
                self._send(HTTPStatus.OK, b"ok\n")

        def _send(self, status: HTTPStatus, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        @override
        def log_message(self, format: str, *args: object) -> None:
            """Log nothing: Kubernetes probes every few seconds."""

    return Handler
