"""Access to the manager for handlers: the worker's connection or, in a process, a separate one.

This module does not import the HTTP client, so a process whose handler does not need it never loads it.
"""

import asyncio
import atexit
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from typing_extensions import override

from jobnik_sdk.errors import ConfigurationError
from jobnik_sdk.execution.cancellation import Cancellation

if TYPE_CHECKING:
    from jobnik_sdk.http.client import JobnikClient
    from jobnik_sdk.producer import Producer

T = TypeVar("T")

_POLL_SECONDS: Final = 0.01
_CLOSE_TIMEOUT_SECONDS: Final = 1.0


class Access(ABC):
    """A connection to the manager, and the event loop that it belongs to."""

    @property
    @abstractmethod
    def client(self) -> "JobnikClient":
        """The connection. Await its methods on its event loop: with `wait`, or in a coroutine there."""

    @property
    @abstractmethod
    def _loop(self) -> asyncio.AbstractEventLoop: ...

    @property
    def producer(self) -> "Producer":
        """A producer that uses the connection."""
        from jobnik_sdk.producer import Producer  # noqa: PLC0415 imported on first use

        return Producer(self.client)

    def wait(self, awaitable: Awaitable[T], cancellation: Cancellation) -> T:
        """Run `awaitable` on the event loop, block until it is done, and return its value; see `TaskContext.wait`."""
        future = asyncio.run_coroutine_threadsafe(as_coroutine(awaitable), self._loop)
        changed = threading.Event()
        try:
            future.add_done_callback(lambda _: changed.set())
            cancellation.on_request(changed.set)
            changed.wait()
            while not future.done():
                cancellation.raise_if_due()  # unless another thread raises `Cancelled` here first
                time.sleep(_POLL_SECONDS)
            return future.result()
        finally:
            future.cancel()
            cancellation.remove_callback(changed.set)


class WorkerAccess(Access):
    """The connection of a worker, on its event loop. Unpickled, it becomes a `ProcessAccess` to the same manager."""

    def __init__(self, client: "JobnikClient") -> None:
        self._client = client
        self._event_loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def __reduce__(self) -> tuple[Callable[[str, str | Path | None], Access], tuple[str, str | Path | None]]:
        return process_access, (self._client.base_url, self._client.given_token)

    @property
    @override
    def client(self) -> "JobnikClient":
        return self._client

    @property
    @override
    def _loop(self) -> asyncio.AbstractEventLoop:
        return self._event_loop

    @override
    def wait(self, awaitable: Awaitable[T], cancellation: Cancellation) -> T:
        if threading.get_ident() == self._thread:
            raise rejected_wait(awaitable, "wait() is for plain functions: use await in a coroutine.")
        return super().wait(awaitable, cancellation)


class ProcessAccess(Access):
    """A separate connection, on an event loop in a separate thread. Both are created on first use."""

    def __init__(self, open_client: "Callable[[], JobnikClient]") -> None:
        self._open_client = open_client
        # No lock: `Cancelled` can be raised at any line and could leave it locked. If two threads each create a
        # connection, `setdefault` keeps one of them, and the other is never used.
        self._connections: dict[None, _Connection] = {}

    @property
    @override
    def client(self) -> "JobnikClient":
        return self._connection.client.result()

    @property
    @override
    def _loop(self) -> asyncio.AbstractEventLoop:
        return self._connection.loop

    @property
    def _connection(self) -> "_Connection":
        return self._connections.get(None) or self._connections.setdefault(None, _Connection(self._open_client))

    def close(self) -> None:
        """Close the connection, if it was opened."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()


class _Connection:
    """An event loop in a thread, and a client that belongs to it."""

    def __init__(self, open_client: "Callable[[], JobnikClient]") -> None:
        self.loop = asyncio.new_event_loop()
        self.client: Future[JobnikClient] = Future()
        self._thread = threading.Thread(target=self._run, args=(open_client,), name="jobnik access", daemon=True)
        self._thread.start()

    def close(self) -> None:
        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(self._close(), self.loop).result(_CLOSE_TIMEOUT_SECONDS)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def _run(self, open_client: "Callable[[], JobnikClient]") -> None:
        # Opened in this thread: it imports many modules, during which a handler must not be interrupted.
        try:
            self.client.set_result(open_client())
        except Exception as error:  # noqa: BLE001 raised where the client is used
            self.client.set_exception(error)
        self.loop.run_forever()

    async def _close(self) -> None:
        await self.client.result().aclose()


_accesses: Final[dict[str, ProcessAccess]] = {}


def process_access(base_url: str, token: str | Path | None) -> ProcessAccess:
    """Return this process's own access to a manager; it has one for each address."""

    def open_client() -> "JobnikClient":
        from jobnik_sdk.http.client import JobnikClient  # noqa: PLC0415 imported on first use

        import_module("jobnik_sdk.producer")  # imports everything that is needed later
        return JobnikClient(base_url, token=token)

    if base_url not in _accesses:
        _accesses[base_url] = ProcessAccess(open_client)
        atexit.register(_accesses[base_url].close)
    return _accesses[base_url]


async def as_coroutine(awaitable: Awaitable[T]) -> T:
    """Wrap any awaitable in a coroutine, as `asyncio.run_coroutine_threadsafe` requires."""
    return await awaitable


def rejected_wait(awaitable: Awaitable[object], message: str) -> ConfigurationError:
    """Return the error for a wait that is impossible here; a coroutine is closed, so that Python does not warn."""
    if isinstance(awaitable, Coroutine):
        awaitable.close()
    return ConfigurationError(message)
