"""Natural batching: while one batch is under way the lane collects what arrives, and the next batch takes it all.

Alone, a caller waits for nobody. Under load many callers share one statement, one commit and one change of the stage's
row, and the busier it gets the larger the share.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextvars import Context
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar, cast

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(slots=True, eq=False)
class _Group(Generic[Item, Answer]):
    """What one caller brought, and what has been answered of it."""

    items: Sequence[Item]
    open: Sequence[int]
    """The places of the items that have no answer yet."""
    answers: Sequence[Answer | None]
    future: asyncio.Future[Sequence[Answer]]

    def take(self, answers: Iterator[Answer | None]) -> None:
        """Put the next answers into the open places."""
        taken = list(islice(answers, len(self.open)))
        if len(taken) < len(self.items):
            merged = list(self.answers)
            for place, answer in zip(self.open, taken, strict=True):
                merged[place] = answer
            taken = merged
        self.answers = taken
        self.open = [place for place, answer in enumerate(taken) if answer is None] if None in taken else ()


class Lane(Generic[Item, Answer]):
    """One batch at a time, in the order of arrival.

    Args:
        work: Gets the items of a batch, gives one answer for each in their order. If it raises, every caller of the
            batch gets that error.
        limit: The most items in one batch; what one caller brings stays together even if it is more.
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
        self._waiting: deque[_Group[Item, Answer]] = deque()
        self._runner: asyncio.Task[None] | None = None

    def submit(self, items: Sequence[Item]) -> asyncio.Future[Sequence[Answer]]:
        """Put items into the next batch; their answers to come. They are worked on even if the caller goes away."""
        future: asyncio.Future[Sequence[Answer]] = asyncio.get_running_loop().create_future()
        self._add(_Group(items, range(len(items)), (), future))
        return future

    def _add(self, group: _Group[Item, Answer]) -> None:
        self._waiting.append(group)
        if self._runner is None:
            # In no request's context: it serves others than the one that starts it.
            self._runner = asyncio.create_task(self._run(), context=Context())

    async def _run(self) -> None:
        while self._waiting:
            batch = self._next_batch()
            try:
                answers = iter(await self._work([group.items[place] for group in batch for place in group.open]))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the callers' answer
                for group in batch:
                    if not group.future.done():
                        group.future.set_exception(error)
                continue
            for group in batch:
                group.take(answers)
                if group.open and self._beyond is not None:
                    self._beyond._add(group)  # noqa: SLF001 - of the same kind
                elif not group.future.done():
                    group.future.set_result(cast("Sequence[Answer]", group.answers))
        self._runner = None

    def _next_batch(self) -> Sequence[_Group[Item, Answer]]:
        batch = [self._waiting.popleft()]
        size = len(batch[0].open)
        while self._waiting and (size := size + len(self._waiting[0].open)) <= self._limit:
            batch.append(self._waiting.popleft())
        return batch
