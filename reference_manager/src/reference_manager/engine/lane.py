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
        work: Gets the items of a batch, gives one answer for each in their order; an answer that is an error is raised
            for its caller. If it raises, every caller of the batch gets that error.
        limit: The most items in one batch.
        droppable: Whether an item is left out when its caller has gone away before its batch began.
        on_idle: Called when nothing waits and nothing is under way.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Awaitable[Sequence[Answer | Exception]]],
        limit: int,
        *,
        droppable: bool = True,
        on_idle: Callable[[], object] = lambda: None,
    ) -> None:
        self._work = work
        self._limit = limit
        self._droppable = droppable
        self._on_idle = on_idle
        self._waiting: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self._runner: asyncio.Task[None] | None = None

    def submit(self, item: Item) -> asyncio.Future[Answer]:
        """Put an item into the next batch; its answer to come. Whoever cancels it has gone away."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())
        return future

    async def _run(self) -> None:
        while batch := self._next_batch():
            answers: Sequence[Answer | Exception]
            try:
                answers = await self._work([item for item, _ in batch])
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the callers' answer
                answers = [error] * len(batch)
            for (_, future), answer in zip(batch, answers, strict=True):
                if future.done():
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
        self._runner = None
        self._on_idle()

    def _next_batch(self) -> list[tuple[Item, asyncio.Future[Answer]]]:
        """The longest waiting callers, without those that have gone away."""
        batch: list[tuple[Item, asyncio.Future[Answer]]] = []
        while self._waiting and len(batch) < self._limit:
            item, future = self._waiting.popleft()
            if not (self._droppable and future.done()):
                batch.append((item, future))
        return batch
