"""Natural batching: a batcher collects items while one batch is processed, and processes them in the next.

A single caller does not wait for others. Under load, many callers share one statement, one commit and one update of the
stage's row. Batches grow with the load.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextvars import Context
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar, cast

from reference_manager.engine.dispatch.pacing import Pacing, take_turns

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(slots=True, eq=False)
class _Group(Generic[Item, Result]):
    """The items of one caller, and their results so far."""

    items: Sequence[Item]
    results: list[Result | Exception | None]
    unfinished: int
    future: asyncio.Future[Sequence[Result | Exception | None]]
    partial_after: float | None
    """Seconds after the first result until the caller gets the results so far. None: the caller gets all results or an
    error."""
    timer: asyncio.TimerHandle | None = None
    expired: bool = False
    """Whether the caller was answered before all its items were finished."""

    def finish_or_wait(self) -> None:
        """Answer the caller if all items are finished; once the first one is, limit the time for the others."""
        if self.future.done():
            return
        if self.unfinished == 0:
            self._answer()
        elif self.partial_after is not None and self.timer is None and self.unfinished < len(self.items):
            self.timer = asyncio.get_running_loop().call_later(self.partial_after, self._expire)

    def _expire(self) -> None:
        if not self.future.done():
            self.expired = True
            self._answer()

    def _answer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        errors = [result for result in self.results if isinstance(result, Exception)]
        if errors and all(result is None or isinstance(result, Exception) for result in self.results):
            self.future.set_exception(errors[0])
        else:
            self.future.set_result(self.results)


@dataclass(slots=True, eq=False)
class _Share(Generic[Item, Result]):
    """The items of a group that one batcher has to process."""

    group: _Group[Item, Result]
    indexes: Sequence[int]

    def fail(self, error: Exception) -> None:
        """Fail these items; unless the caller takes partial results, also the whole group."""
        if self.group.partial_after is not None:
            for index in self.indexes:
                self.group.results[index] = error
            self.group.unfinished -= len(self.indexes)
            self.group.finish_or_wait()
        elif not self.group.future.done():
            self.group.future.set_exception(error)


class Batcher(Generic[Item, Result]):
    """Processes one batch at a time, in the order of arrival.

    Args:
        process: Processes the items of a batch. It returns, for each item in order, the result, or another batcher to
            forward the item to. If it raises, every caller of the batch gets the error.
        limit: The maximum number of items in a batch. The items of one caller stay together, even if they are more.
        on_idle: Called when no items are left.
        pacing: Decides when batches start; by default, at once.
    """

    def __init__(
        self,
        process: "Callable[[Sequence[Item]], Awaitable[Sequence[Result | Batcher[Item, Result]]]]",
        limit: int,
        on_idle: Callable[[], object] = lambda: None,
        pacing: Pacing | None = None,
    ) -> None:
        self._process = process
        self._limit = limit
        self._on_idle = on_idle
        self._pacing = pacing or Pacing()
        self._waiting: deque[_Share[Item, Result]] = deque()
        self._runner: asyncio.Task[None] | None = None

    def submit(self, items: Sequence[Item]) -> asyncio.Future[Sequence[Result]]:
        """Add items to the next batch.

        Returns:
            A future of one result for each item, in order. Cancelling it does not stop the processing.
        """
        return cast("asyncio.Future[Sequence[Result]]", self._submit(items, None))

    def submit_partial(
        self, items: Sequence[Item], partial_after: float
    ) -> asyncio.Future[Sequence[Result | Exception | None]]:
        """Add items to the next batch, for a caller that does not want to wait for the slowest of them.

        Args:
            items: The items.
            partial_after: Seconds after the first result until the caller gets the results so far.

        Returns:
            A future of one result for each item, in order: its result, the error that it failed with, or None if it is
            unfinished. The batcher drops an unfinished item unless its batch has started. If there are only errors, the
            future raises the first. Cancelling the future does not stop the processing.
        """
        return self._submit(items, partial_after)

    def _submit(
        self, items: Sequence[Item], partial_after: float | None
    ) -> asyncio.Future[Sequence[Result | Exception | None]]:
        future: asyncio.Future[Sequence[Result | Exception | None]] = asyncio.get_running_loop().create_future()
        group = _Group[Item, Result](items, [None] * len(items), len(items), future, partial_after)
        self._pacing.arrive()
        self._add(_Share(group, range(len(items))))
        return future

    def _add(self, share: _Share[Item, Result]) -> None:
        self._waiting.append(share)
        if self._runner is None:
            # An empty context: the task serves many requests, not only the one that starts it.
            self._runner = asyncio.create_task(self._run(), context=Context())

    async def _run(self) -> None:
        while self._waiting:
            await self._pacing.begin(self._size)
            batch = self._next_batch()
            items = [share.group.items[index] for share in batch for index in share.indexes]
            try:
                results = iter(await self._process(items) if items else ())
            except Exception as error:  # noqa: BLE001 - every error goes to the callers
                for share in batch:
                    share.fail(error)
            else:
                for share in batch:
                    self._record(share, islice(results, len(share.indexes)))
            self._pacing.end(len(batch))
            if self._waiting:
                await take_turns()
        self._runner = None
        self._on_idle()

    @staticmethod
    def _record(share: _Share[Item, Result], results: "Iterable[Result | Batcher[Item, Result]]") -> None:
        """Record the results of a share, and forward its other items."""
        group = share.group
        forwarded: defaultdict[Batcher[Item, Result], list[int]] = defaultdict(list)
        for index, result in zip(share.indexes, results, strict=True):
            if isinstance(result, Batcher):
                forwarded[cast("Batcher[Item, Result]", result)].append(index)
            else:
                group.results[index] = result
                group.unfinished -= 1
        for batcher, indexes in forwarded.items():
            batcher._add(_Share(group, indexes))  # noqa: SLF001 - another instance of this class
        group.finish_or_wait()

    def _size(self) -> int:
        """Return the number of items that wait."""
        return sum(len(share.indexes) for share in self._waiting)

    def _next_batch(self) -> Sequence[_Share[Item, Result]]:
        """Take the next shares, without those whose callers no longer expect a result; empty if these were the last."""
        batch: list[_Share[Item, Result]] = []
        size = 0
        while self._waiting:
            share = self._waiting[0]
            if not share.group.expired:
                size += len(share.indexes)
                if batch and size > self._limit:
                    break
                batch.append(share)
            self._waiting.popleft()
        return batch
