"""Creates any number of tasks, with only a few requests in memory."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from inspect import isawaitable
from typing import Final, Generic, TypeVar

from jobnik_sdk.errors import (
    LostAnswerError,
    ManagerFailureError,
    StreamError,
    UnexpectedAnswerError,
)
from jobnik_sdk.model.arguments import check_callable, check_integer
from jobnik_sdk.producer.bodies import json_array

BATCH_BYTES: Final = 1_000_000
"""The maximum size of a request in bytes, below the manager's limit of 1 MiB. A larger task is sent alone."""

ItemT = TypeVar("ItemT")

# In these cases the manager, or a manager behind a proxy, may have carried out the request.
_UNCERTAIN: Final = (LostAnswerError, ManagerFailureError, UnexpectedAnswerError)


@dataclass(frozen=True, slots=True)
class StreamProgress:
    """The progress of `Producer.stream_tasks`.

    Attributes:
        created: The number of tasks created so far.
        elapsed: The time since the stream started.
    """

    created: int
    elapsed: timedelta

    @property
    def rate(self) -> float:
        """The mean number of tasks created per second."""
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
    """Sends tasks in batches, with several requests at the same time.

    Args:
        encode: Returns the JSON of the task at a position.
        send: Sends a JSON array of tasks, and returns when they are created.
        batch: The maximum number of tasks in a request.
        in_flight: The maximum number of requests at the same time.
        on_progress: Called after each batch; if it returns an awaitable, that is awaited.

    Raises:
        ConfigurationError: `batch` or `in_flight` is less than 1.
    """

    def __init__(
        self,
        encode: Callable[[int, ItemT], bytes],
        send: Callable[[bytes], Awaitable[None]],
        *,
        batch: int,
        in_flight: int,
        on_progress: Callable[[StreamProgress], object] | None,
    ) -> None:
        check_integer("batch", batch)
        check_integer("in_flight", in_flight)
        if on_progress is not None:
            check_callable("on_progress", on_progress)
        self._encode = encode
        self._send = send
        self._batch_size = batch
        self._request_slots = asyncio.Semaphore(in_flight)
        self._on_progress = on_progress
        self._started_at = time.monotonic()
        self._created = 0
        self._unsent = 0
        self._refused: list[range] = []
        self._uncertain: list[range] = []
        self._failure: Exception | None = None

    async def run(self, tasks: Iterable[ItemT] | AsyncIterable[ItemT]) -> int:
        """Create all tasks, and return their number.

        After the first failure no further request is sent, and those in flight are awaited.

        Raises:
            StreamError: the iteration over `tasks`, the encoding of a task, a request, or `on_progress` failed.
        """
        async with asyncio.TaskGroup() as sending:
            try:
                await self._send_all(tasks, sending)
            except Exception as error:  # noqa: BLE001 the iterable is the application's code
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
                await self._request_slots.acquire()
                if self._failure is not None:
                    return
                self._unsent = batch.positions.stop
                sending.create_task(self._send_one(batch))
                await asyncio.sleep(0)  # lets the request start before the next batch is encoded

    async def _batches(self, tasks: Iterable[ItemT] | AsyncIterable[ItemT]) -> AsyncGenerator[_Batch]:
        batch = _Batch(0)
        position = 0
        async for task in _iterate(tasks):
            document = self._encode(position, task)
            full = len(batch.documents) == self._batch_size or batch.size + len(document) > BATCH_BYTES
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
            await self._send(json_array(batch.documents))
        except Exception as error:  # noqa: BLE001 any failure stops the stream
            self._fail(error)
            (self._uncertain if isinstance(error, _UNCERTAIN) else self._refused).append(batch.positions)
        else:
            self._created += len(batch.documents)
            await self._report_progress()
        finally:
            self._request_slots.release()

    async def _report_progress(self) -> None:
        if self._on_progress is not None:
            elapsed = timedelta(seconds=time.monotonic() - self._started_at)
            try:
                noted = self._on_progress(StreamProgress(self._created, elapsed))
                if isawaitable(noted):
                    await noted
            except Exception as error:  # noqa: BLE001 the callback is the application's code
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        """Record a failure; only the first one is raised."""
        if self._failure is None:
            self._failure = error


async def _iterate(tasks: Iterable[ItemT] | AsyncIterable[ItemT]) -> AsyncGenerator[ItemT]:
    if isinstance(tasks, AsyncIterable):
        async for task in tasks:
            yield task
    else:
        for task in tasks:
            yield task
