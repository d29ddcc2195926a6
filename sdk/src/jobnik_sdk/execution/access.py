"""How a handler reaches the manager beside its task: over its worker's connection, or in a process over one of its own.

Importing this brings no HTTP client along: a process that has no use for one never loads it.
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
from typing import TYPE_CHECKING, Final, TypeVar

from typing_extensions import override

from jobnik_sdk.errors import ConfigurationError
from jobnik_sdk.execution.cancellation import Cancellation

if TYPE_CHECKING:
    from jobnik_sdk.http.client import JobnikClient
    from jobnik_sdk.producer import Producer

T = TypeVar("T")

_LOOK: Final = 0.01
_CLOSE_TIMEOUT: Final = 1.0


class Access(ABC):
    """A connection to the manager, and the event loop that it lives on."""

    @property
    @abstractmethod
    def client(self) -> "JobnikClient":
        """The connection; what it is asked has to be awaited on its event loop: in `wait`, or in a coroutine there."""

    @property
    @abstractmethod
    def _loop(self) -> asyncio.AbstractEventLoop: ...

    @property
    def producer(self) -> "Producer":
        """A producer on the connection."""
        from jobnik_sdk.producer import Producer  # noqa: PLC0415 not before it is needed

        return Producer(self.client)

    def wait(self, awaitable: Awaitable[T], cancellation: Cancellation) -> T:
        """Block until `awaitable` has been awaited on the event loop, and return its value; see `TaskContext.wait`."""
        future = asyncio.run_coroutine_threadsafe(awaited(awaitable), self._loop)
        news = threading.Event()
        try:
            future.add_done_callback(lambda _: news.set())
            cancellation.on_request(news.set)
            news.wait()
            while not future.done():
                cancellation.raise_if_due()  # or it is raised from elsewhere, at one of these lines
                time.sleep(_LOOK)
            return future.result()
        finally:
            future.cancel()
            cancellation.forget(news.set)


class WorkerAccess(Access):
    """The connection of a worker, on its event loop; unpickled, it is a `ProcessAccess` to the same manager."""

    def __init__(self, client: "JobnikClient") -> None:
        self._client = client
        self._home = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def __reduce__(self) -> tuple[Callable[[str], Access], tuple[str]]:
        return process_access, (self._client.base_url,)

    @property
    @override
    def client(self) -> "JobnikClient":
        return self._client

    @property
    @override
    def _loop(self) -> asyncio.AbstractEventLoop:
        return self._home

    @override
    def wait(self, awaitable: Awaitable[T], cancellation: Cancellation) -> T:
        if threading.get_ident() == self._thread:
            raise not_here(awaitable, "wait is for plain functions. A coroutine says await.")
        return super().wait(awaitable, cancellation)


class ProcessAccess(Access):
    """A connection of its own, with an event loop in a thread of its own: both are made when they are first needed."""

    def __init__(self, open_client: "Callable[[], JobnikClient]") -> None:
        self._open_client = open_client
        # No lock: `Cancelled` may be raised at any line here, and could leave it taken. Of two lines one is never used.
        self._lines: dict[None, _Connection] = {}

    @property
    @override
    def client(self) -> "JobnikClient":
        return self._line.client.result()

    @property
    @override
    def _loop(self) -> asyncio.AbstractEventLoop:
        return self._line.loop

    @property
    def _line(self) -> "_Connection":
        return self._lines.get(None) or self._lines.setdefault(None, _Connection(self._open_client))

    def close(self) -> None:
        """Close the connection, if there is one."""
        for line in self._lines.values():
            line.close()
        self._lines.clear()


class _Connection:
    """An event loop in a thread, and a client on it."""

    def __init__(self, open_client: "Callable[[], JobnikClient]") -> None:
        self.loop = asyncio.new_event_loop()
        self.client: Future[JobnikClient] = Future()
        self._thread = threading.Thread(target=self._live, args=(open_client,), name="jobnik access", daemon=True)
        self._thread.start()

    def close(self) -> None:
        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(self._close(), self.loop).result(_CLOSE_TIMEOUT)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def _live(self, open_client: "Callable[[], JobnikClient]") -> None:
        # Opened here, since that imports much, in which a handler must not be interrupted.
        try:
            self.client.set_result(open_client())
        except Exception as error:  # noqa: BLE001 it is raised where the client is asked for
            self.client.set_exception(error)
        self.loop.run_forever()

    async def _close(self) -> None:
        await self.client.result().aclose()


_own: Final[dict[str, ProcessAccess]] = {}


def process_access(base_url: str) -> ProcessAccess:
    """Return the one connection that this process has of its own to a manager."""

    def open_client() -> "JobnikClient":
        from jobnik_sdk.http.client import JobnikClient  # noqa: PLC0415 not before it is needed

        import_module("jobnik_sdk.producer")  # all that will be needed, in one go
        return JobnikClient(base_url)

    if base_url not in _own:
        _own[base_url] = ProcessAccess(open_client)
        atexit.register(_own[base_url].close)
    return _own[base_url]


async def awaited(awaitable: Awaitable[T]) -> T:
    """Await it: a coroutine is what an event loop takes."""
    return await awaitable


def not_here(awaitable: Awaitable[object], why: str) -> ConfigurationError:
    """Return the error for something that cannot be waited for here, and see that nobody waits for it any more."""
    if isinstance(awaitable, Coroutine):
        awaitable.close()
    return ConfigurationError(why)
