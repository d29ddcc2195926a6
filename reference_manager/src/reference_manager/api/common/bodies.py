"""Request bodies: a limit for their memory, and processes that parse large ones without delaying other requests.

A body of 1 MiB can hold ninety thousand tasks. Parsing it takes a second and a hundred times its size in memory. Large
bodies are therefore parsed in another process, and only a few of their requests are served at once. Bodies of more than
1 MiB, which the manager accepts only if it is set up to, have a process of their own, so that they delay no others.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any

import structlog
from starlette.exceptions import HTTPException

from reference_manager.api.common.errors import MANAGER_BUSY, RETRY_AFTER, body_too_large
from reference_manager.api.common.fields import BodyContext
from reference_manager.api.common.parser_client import ParserClient, ParserEndedError

log = structlog.stdlib.get_logger(__name__)

LARGE = 64 * 1024
"""Bytes. Larger bodies count as large."""
HUGE = 1024 * 1024
"""Bytes. Larger bodies have a process of their own."""
MAX_RECEIVED = 64 * 1024 * 1024
"""The maximum number of bytes of large bodies in memory, or four times the limit of a body if that is more."""
LARGE_AT_ONCE = 4
"""The maximum number of requests with large bodies that are served at once. As many may wait for locks besides."""
TURN_TIMEOUT = timedelta(seconds=10)
"""How long a large body waits for its turn before the response is 503."""


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
        self._turn_timeouts = set[asyncio.Timeout]()
        """The time limits of the bodies that wait for their turn."""
        self._waiting = 0
        """The number of requests with large bodies that wait for locks."""
        self._is_closed = False
        self._parser, self._parser_of_huge = ParserClient(), ParserClient()

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
        timeout = asyncio.timeout(0 if self._is_closed else TURN_TIMEOUT.total_seconds())
        try:
            async with timeout:
                self._turn_timeouts.add(timeout)
                await self._turns.acquire()
        except TimeoutError:
            raise _busy() from None
        finally:
            self._turn_timeouts.discard(timeout)
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

    async def parse(self, body: bytes, form: bytes, context: BodyContext) -> Any:  # noqa: ANN401 - as in ``ParserClient``
        """Parse, validate and convert a body in another process; see ``ParserClient.parse``.

        Raises:
            RequestValidationError: The body is invalid.
            HTTPException: The process ended (503).
        """
        parser = self._parser if len(body) <= HUGE else self._parser_of_huge
        if self._is_closed:
            raise _busy()
        try:
            return await asyncio.get_running_loop().run_in_executor(parser.thread, parser.parse, body, form, context)
        except ParserEndedError:
            if not self._is_closed:
                log.warning("large body not parsed: its process ended", size=len(body))
            raise _busy() from None

    def close(self) -> None:
        """End the processes. Requests whose body is being parsed, or waits for that, are refused (503); idempotent."""
        self._is_closed = True
        for timeout in self._turn_timeouts:
            timeout.reschedule(asyncio.get_running_loop().time())
        self._parser.close()
        self._parser_of_huge.close()


def _excess(size: int) -> int:
    """Return how many bytes of a body count: those beyond a small body, because connections limit the rest."""
    return max(size - LARGE, 0)


def _busy() -> HTTPException:
    return HTTPException(503, MANAGER_BUSY.message, RETRY_AFTER)
