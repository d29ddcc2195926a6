"""Health probes and metrics over HTTP, served by a thread: they respond even if the event loop is blocked.

The thread has its own event loop. However many clients are slow, send nothing or disconnect early, they take no threads
from the worker, and they do not delay the probes of others. Clients cause no log lines.
"""

import asyncio
import os
import socket
import threading
import time
from types import TracebackType
from typing import Final, Protocol, Self
from weakref import WeakSet

from jobnik_sdk.observability.probe_connections import ProbeConnection, ProbeResponder

BLOCKED_AFTER_SECONDS: Final = 60.0
"""How long the event loop may be blocked before the liveness probe fails."""


BACKLOG: Final = 1024
"""Connections that the kernel queues until the server accepts them."""

_listeners: Final[WeakSet[socket.socket]] = WeakSet()


def _close_listeners() -> None:
    """Close the listeners in a fork that a handler made: the fork may outlive the worker, and would keep the port."""
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
        host: The address to listen on: IPv4, IPv6 (also in brackets) or a name; `::` includes IPv4.
        port: The port to listen on; 0 chooses a free one, which is then in `port`.

    Raises:
        OSError: the port is in use, or the address does not exist on this machine.
    """

    def __init__(self, health: Health, *, host: str, port: int) -> None:
        probes = {"/livez": health.live, "/readyz": health.ready, "/startupz": health.started}
        self._listener = _listen(host, port)
        _listeners.add(self._listener)
        self.port: Final[int] = self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._responder = ProbeResponder(probes, self._loop)
        self._thread = threading.Thread(target=self._run, name="jobnik-probes", daemon=True)

    def __enter__(self) -> Self:
        """Start serving."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop serving, and release the port."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        self._loop.set_exception_handler(lambda _loop, _context: None)  # connections that clients reset
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        server = await self._loop.create_server(
            lambda: ProbeConnection(self._responder), sock=self._listener, backlog=BACKLOG
        )
        await self._stop.wait()
        server.close()
        self._responder.close()
        await asyncio.sleep(0)  # the connections close in the next turn of the loop


def _listen(host: str, port: int) -> socket.socket:
    try:
        if host.startswith("[") and host.endswith("]"):  # as in a URL
            host = host[1:-1]
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except ValueError as error:  # the text cannot be a host name
        raise OSError(0, str(error)) from None
    family, _, _, _, address = min(found, key=lambda info: info[0] is not socket.AF_INET)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family is socket.AF_INET6:
            includes_ipv4 = str(address[0]) == "::" or str(address[0]).startswith("::ffff:")
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not includes_ipv4))
        listener.bind(address)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener
