"""Probes and metrics over HTTP, from a thread of their own: they answer even while the event loop is blocked."""

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Final, Protocol, Self

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from typing_extensions import override

STALLED_AFTER_SECONDS: Final = 60.0


class ObservedWorker(Protocol):
    """A worker, as its probes see it."""

    @property
    def ready(self) -> bool:
        """Whether it has met its manager, and is not stopping."""
        ...

    @property
    def polling(self) -> bool:
        """Whether it asks for tasks as it should."""
        ...


class Health:
    """How a worker's process is. Each probe answers what is wrong in a few words, nothing if all is well."""

    def __init__(self) -> None:
        self._last_tick: float | None = None
        self._worker: ObservedWorker | None = None

    def watch(self, worker: ObservedWorker) -> None:
        """Say which worker it is about, once there is one."""
        self._worker = worker

    def tick(self) -> None:
        """Note that the event loop turns."""
        self._last_tick = time.monotonic()

    def live(self) -> str:
        """Whether restarting the process would help: its event loop stands still, or it asks for no more tasks.

        It never depends on the manager: a claim that failed was tried.
        """
        still = 0.0 if self._last_tick is None else time.monotonic() - self._last_tick
        if still >= STALLED_AFTER_SECONDS:
            return f"the event loop has stood still for {still:.0f} s"
        if self._worker is not None and not self._worker.polling:
            return "there are free slots, and no task has been asked for lately"
        return ""

    def ready(self) -> str:
        """Whether it works: the settings are right, the manager has answered, and nobody has asked it to stop."""
        if self._worker is None:
            return "the worker is not made yet"
        return "" if self._worker.ready else "the manager does not answer, or the worker is stopping"

    def started(self) -> str:
        """Whether it has begun to work."""
        return "" if self._last_tick is not None else "the worker has not begun yet"


class ProbeServer:
    """Serves /livez, /readyz, /startupz and /metrics while it is entered; each probe is 200, or 503 and the reason.

    Port 0 takes a free one: see `port`.

    Raises:
        OSError: the port is taken.
    """

    def __init__(self, vitals: Health, *, host: str, port: int) -> None:
        probes = {"/livez": vitals.live, "/readyz": vitals.ready, "/startupz": vitals.started}
        self._server = ThreadingHTTPServer((host, port), _handler_of(probes))
        self._server.daemon_threads = True
        # serve_forever looks this often whether it is to end, which every stopping worker waits for.
        serve = partial(self._server.serve_forever, poll_interval=0.05)
        self._thread = threading.Thread(target=serve, name="jobnik-probes", daemon=True)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._server.server_port

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


def _handler_of(probes: Mapping[str, Callable[[], str]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._send(HTTPStatus.OK, generate_latest(), CONTENT_TYPE_LATEST)
            elif path not in probes:
                self._send(HTTPStatus.NOT_FOUND, b"not found\n")
            elif wrong := probes[path]():
                self._send(HTTPStatus.SERVICE_UNAVAILABLE, f"{wrong}\n".encode())
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
            """Say nothing: a kubelet asks every few seconds."""

    return Handler
