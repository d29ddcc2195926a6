"""Natural batching: while one batch is under way the lane collects what arrives, and the next batch takes it all.

Alone, a caller waits for nobody. Under load many callers share one statement, one commit and one change of the stage's
row, and the busier it gets the larger the share.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Lane(Generic[Item, Answer]):
    """One batch at a time, in the order of arrival.

    Args:
        work: Gets the items of a batch, gives one answer for each in their order. If it raises, every caller of the
            batch gets that error.
        limit: The most items in one batch.
        beyond: Gets the items whose answer is None.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Awaitable[Sequence[Answer | None]]],
        limit: int,
        beyond: "Lane[Item, Answer] | None" = None,
    ) -> None:
        self._work = work
        self._limit = limit
        self._beyond = beyond
        self._waiting: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self._runner: asyncio.Task[None] | None = None

    def submit(self, item: Item) -> asyncio.Future[Answer]:
        """Put an item into the next batch; its answer to come. It is worked on even if its caller goes away."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._add(item, future)
        return future

    def _add(self, item: Item, future: asyncio.Future[Answer]) -> None:
        self._waiting.append((item, future))
        if self._runner is None:
            # In no request's context: it serves others than the one that starts it.
            self._runner = asyncio.create_task(self._run(), context=Context())

    async def _run(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(self._limit, len(self._waiting)))]
            try:
                answers = await self._work([item for item, _ in batch])
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the callers' answer
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (item, future), answer in zip(batch, answers, strict=True):
                if answer is None and self._beyond is not None:
                    self._beyond._add(item, future)  # noqa: SLF001 - of the same kind
                elif answer is not None and not future.done():
                    future.set_result(answer)
        self._runner = None
