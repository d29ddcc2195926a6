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

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(slots=True, eq=False)
class _Group(Generic[Item, Result]):
    """The items of one caller, and their results so far."""

    items: Sequence[Item]
    results: list[Result | None]
    unfinished: int
    future: asyncio.Future[Sequence[Result]]


@dataclass(slots=True, eq=False)
class _Share(Generic[Item, Result]):
    """The items of a group that one batcher has to process."""

    group: _Group[Item, Result]
    indexes: Sequence[int]

    def fail(self, error: Exception) -> None:
        """Fail the whole group. The results of its other items are discarded."""
        if not self.group.future.done():
            self.group.future.set_exception(error)


class Batcher(Generic[Item, Result]):
    """Processes one batch at a time, in the order of arrival.

    Args:
        process: Processes the items of a batch. It returns, for each item in order, the result, or another batcher to
            forward the item to. If it raises, every caller of the batch gets the error.
        limit: The maximum number of items in a batch. The items of one caller stay together, even if they are more.
        on_idle: Called when no items are left.
    """

    def __init__(
        self,
        process: "Callable[[Sequence[Item]], Awaitable[Sequence[Result | Batcher[Item, Result]]]]",
        limit: int,
        on_idle: Callable[[], object] = lambda: None,
    ) -> None:
        self._process = process
        self._limit = limit
        self._on_idle = on_idle
        self._waiting: deque[_Share[Item, Result]] = deque()
        self._runner: asyncio.Task[None] | None = None

    def submit(self, items: Sequence[Item]) -> asyncio.Future[Sequence[Result]]:
        """Add items to the next batch.

        Returns:
            A future of one result for each item, in order. Cancelling it does not stop the processing.
        """
        future: asyncio.Future[Sequence[Result]] = asyncio.get_running_loop().create_future()
        self._add(_Share(_Group(items, [None] * len(items), len(items), future), range(len(items))))
        return future

    def _add(self, share: _Share[Item, Result]) -> None:
        self._waiting.append(share)
        if self._runner is None:
            # An empty context: the task serves many requests, not only the one that starts it.
            self._runner = asyncio.create_task(self._run(), context=Context())

    async def _run(self) -> None:
        while self._waiting:
            batch = self._next_batch()
            try:
                results = iter(
                    await self._process([share.group.items[index] for share in batch for index in share.indexes])
                )
            except Exception as error:  # noqa: BLE001 - every error goes to the callers
                for share in batch:
                    share.fail(error)
            else:
                for share in batch:
                    self._record(share, islice(results, len(share.indexes)))
            if self._waiting:
                # Let the event loop read from the sockets once, so that those requests join the next batch.
                await asyncio.sleep(0)
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
        if group.unfinished == 0 and not group.future.done():
            group.future.set_result(cast("Sequence[Result]", group.results))

    def _next_batch(self) -> Sequence[_Share[Item, Result]]:
        batch = [self._waiting.popleft()]
        size = len(batch[0].indexes)
        while self._waiting and (size := size + len(self._waiting[0].indexes)) <= self._limit:
            batch.append(self._waiting.popleft())
        return batch
