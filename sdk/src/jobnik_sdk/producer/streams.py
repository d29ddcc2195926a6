"""Creating any number of tasks in the memory of a few requests."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Generic, TypeVar

from jobnik_sdk.errors import ConfigurationError, LostAnswerError, ManagerFailureError, StreamError
from jobnik_sdk.producer.bodies import listed

BATCH_BYTES: Final = 1_000_000
"""The most bytes of one request, below the 1 MiB that a manager takes; a larger task goes alone."""

ItemT = TypeVar("ItemT")

# Both may come after the manager, or one behind a proxy, has done what was asked.
_UNCERTAIN: Final = (LostAnswerError, ManagerFailureError)


@dataclass(frozen=True, slots=True)
class StreamProgress:
    """How far a stream of tasks is: `created` so far, in `elapsed`."""

    created: int
    elapsed: timedelta

    @property
    def rate(self) -> float:
        """Tasks a second, since the stream began."""
        return self.created / max(self.elapsed.total_seconds(), 1e-9)


@dataclass(slots=True)
class _Batch:
    start: int
    documents: list[bytes] = field(default_factory=list[bytes])
    size: int = 0

    @property
    def positions(self) -> range:
        return range(self.start, self.start + len(self.documents))


class TaskStream(Generic[ItemT]):
    """Sends tasks in batches, several at the same time.

    Args:
        write: Makes the JSON of the task at a position.
        send: Sends a JSON list of tasks, and returns when they are created.
        batch: The most tasks in one request.
        in_flight: The most requests at the same time.
        on_progress: Called after each batch.

    Raises:
        ConfigurationError: `batch` or `in_flight` is less than 1.
    """

    def __init__(
        self,
        write: Callable[[int, ItemT], bytes],
        send: Callable[[bytes], Awaitable[None]],
        *,
        batch: int,
        in_flight: int,
        on_progress: Callable[[StreamProgress], None] | None,
    ) -> None:
        if batch < 1 or in_flight < 1:
            raise ConfigurationError("A stream has at least 1 task in a batch, and 1 batch in flight.")
        self._write = write
        self._send = send
        self._batch = batch
        self._slots = asyncio.Semaphore(in_flight)
        self._on_progress = on_progress
        self._began = time.monotonic()
        self._created = 0
        self._unsent = 0
        self._refused: list[range] = []
        self._uncertain: list[range] = []
        self._failure: Exception | None = None

    async def run(self, tasks: Iterable[ItemT] | AsyncIterable[ItemT]) -> int:
        """Create all tasks, and return how many there were.

        After a failure nothing more is sent, and what is in flight is waited for.

        Raises:
            StreamError: something failed: the tasks' source, one of them, a request, or `on_progress`.
        """
        async with asyncio.TaskGroup() as sending:
            try:
                await self._send_all(tasks, sending)
            except Exception as error:  # noqa: BLE001 the source is the application's code
                self._fail(error)
        if self._failure is not None:
            raise StreamError(
                self._failure,
                created=self._created,
                refused=self._refused,
                uncertain=self._uncertain,
                unsent=self._unsent,
            ) from self._failure
        return self._created

    async def _send_all(self, tasks: Iterable[ItemT] | AsyncIterable[ItemT], sending: asyncio.TaskGroup) -> None:
        async with aclosing(self._batches(tasks)) as batches:
            async for batch in batches:
                await self._slots.acquire()
                if self._failure is not None:
                    return
                self._unsent = batch.positions.stop
                sending.create_task(self._send_one(batch))
                await asyncio.sleep(0)  # so that it is on its way before the next is made

    async def _batches(self, tasks: Iterable[ItemT] | AsyncIterable[ItemT]) -> AsyncGenerator[_Batch]:
        batch = _Batch(0)
        position = 0
        async for task in _each(tasks):
            document = self._write(position, task)
            full = len(batch.documents) == self._batch or batch.size + len(document) > BATCH_BYTES
            if full and batch.documents:
                yield batch
                batch = _Batch(position)
            batch.documents.append(document)
            batch.size += len(document) + 1
            position += 1
        if batch.documents:
            yield batch

    async def _send_one(self, batch: _Batch) -> None:
        try:
            await self._send(listed(batch.documents))
        except Exception as error:  # noqa: BLE001 it ends the stream, and the others in flight are waited for
            self._fail(error)
            (self._uncertain if isinstance(error, _UNCERTAIN) else self._refused).append(batch.positions)
        else:
            self._created += len(batch.documents)
            self._tell()
        finally:
            self._slots.release()

    def _tell(self) -> None:
        if self._on_progress is not None:
            try:
                self._on_progress(StreamProgress(self._created, timedelta(seconds=time.monotonic() - self._began)))
            except Exception as error:  # noqa: BLE001 it is the application's code
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        """The first failure is the one that is told."""
        if self._failure is None:
            self._failure = error


async def _each(tasks: Iterable[ItemT] | AsyncIterable[ItemT]) -> AsyncGenerator[ItemT]:
    if isinstance(tasks, AsyncIterable):
        async for task in tasks:
            yield task
    else:
        for task in tasks:
            yield task
