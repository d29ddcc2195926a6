"""Request bodies: a limit for their memory, and a thread that parses large ones without delaying other requests.

A body of 1 MiB can hold ninety thousand tasks. Parsing it takes a second and a hundred times its size in memory. Large
bodies are therefore parsed in a thread, one at a time, and only a few of their requests are served at once.
"""

import asyncio
import gc
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar

from starlette.exceptions import HTTPException

from reference_manager.api.common.errors import MANAGER_BUSY, RETRY_AFTER, body_too_large

LARGE = 64 * 1024
"""Bytes. Larger bodies count as large."""
MAX_RECEIVED = 64 * 1024 * 1024
"""The maximum number of bytes of large bodies in memory, or four times the limit of a body if that is more."""
LARGE_AT_ONCE = 4
"""The maximum number of requests with large bodies that are served at once. As many may wait for locks besides."""
TURN_TIMEOUT = timedelta(seconds=10)
"""How long a large body waits for its turn before the response is 503."""

Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")


class Reservation:
    """The bytes of one body that count towards the total."""

    def __init__(self, bodies: "Bodies") -> None:
        self._bodies = bodies
        self.size = 0

    def add(self, size: int) -> None:
        """Count bytes that have arrived.

        Raises:
            HTTPException: The body is larger than the limit (413), or there are too many bodies (503).
        """
        before, self.size = self.size, self.size + size
        self._bodies.count(before, self.size)


class Bodies:
    """The request bodies that are being received or served.

    Args:
        limit: The maximum size of a body, in bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._total = max(MAX_RECEIVED, LARGE_AT_ONCE * limit)
        self._received = 0
        self._turns = asyncio.Semaphore(LARGE_AT_ONCE)
        self._waiting = 0
        """The number of requests with large bodies that wait for locks."""
        self._thread = ThreadPoolExecutor(1, "bodies")

    @contextmanager
    def reserve(self) -> Generator[Reservation]:
        """Count the bytes of a body until the end of the ``with`` block."""
        reservation = Reservation(self)
        try:
            yield reservation
        finally:
            self._received -= _excess(reservation.size)

    def count(self, before: int, after: int) -> None:
        """Count the bytes by which a body has grown. Raises HTTPException as ``Reservation.add`` does."""
        self._received += _excess(after) - _excess(before)
        if after > self._limit:
            raise HTTPException(413, body_too_large(self._limit).message)
        if after > LARGE and self._received > self._total:
            raise _busy()

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[Callable[[], bool]]:
        """Wait until fewer than ``LARGE_AT_ONCE`` large bodies are being served.

        Yields:
            A function that lets another body have the turn, because the request waits for a lock. It returns whether it
            did: not if too many requests wait already.

        Raises:
            HTTPException: It took too long (503).
        """
        try:
            async with asyncio.timeout(TURN_TIMEOUT.total_seconds()):
                await self._turns.acquire()
        except TimeoutError:
            raise _busy() from None
        given_up = False

        def give_up() -> bool:
            nonlocal given_up
            if not given_up and self._waiting < LARGE_AT_ONCE:
                given_up = True
                self._waiting += 1
                self._turns.release()
            return given_up

        try:
            yield give_up
        finally:
            if given_up:
                self._waiting -= 1
            else:
                self._turns.release()
            gc.unfreeze()

    async def apart(
        self, function: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs
    ) -> Result:
        """Call a function in the thread for large bodies."""

        def call() -> Result:
            return _without_collections(function, *arguments, **named)

        return await asyncio.get_running_loop().run_in_executor(self._thread, call)


def _without_collections(function: Callable[..., Result], *arguments: Any, **named: Any) -> Result:  # noqa: ANN401 - any
    """Call a function. Garbage collections ignore its objects: examining them would stop all threads."""
    gc.disable()
    try:
        return function(*arguments, **named)
    finally:
        gc.freeze()
        gc.enable()


def _excess(size: int) -> int:
    """Return how many bytes of a body count: those beyond a small body, because connections limit the rest."""
    return max(size - LARGE, 0)


def _busy() -> HTTPException:
    return HTTPException(503, MANAGER_BUSY.message, RETRY_AFTER)
