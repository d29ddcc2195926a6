"""Natural batching: while one batch is under way the lane collects what arrives, and the next batch takes it all.

Alone, a caller waits for nobody. Under load many callers share one statement, one commit and one change of the stage's
row, and the busier it gets the larger the share.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Lane(Generic[Item, Answer]):
    """One batch at a time, in the order of arrival.

    Args:
        work: Gets the items of a batch, gives one answer for each in their order. If it raises, every caller of the
            batch gets that error.
        limit: The most items in one batch.
    """

    def __init__(self, work: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]], limit: int) -> None:
        self._work = work
        self._limit = limit
        self._waiting: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self._runner: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        return self._runner is None

    async def submit(self, item: Item) -> Answer:
        """Put an item into the next batch and wait for its answer."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        while batch := self._next_batch():
            try:
                answers = await self._work([item for item, _ in batch])
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the callers' answer
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
            else:
                for (_, future), answer in zip(batch, answers, strict=True):
                    if not future.done():
                        future.set_result(answer)
        self._runner = None

    def _next_batch(self) -> list[tuple[Item, asyncio.Future[Answer]]]:
        """The longest waiting callers, without those that have gone away."""
        batch: list[tuple[Item, asyncio.Future[Answer]]] = []
        while self._waiting and len(batch) < self._limit:
            item, future = self._waiting.popleft()
            if not future.done():
                batch.append((item, future))
        return batch
