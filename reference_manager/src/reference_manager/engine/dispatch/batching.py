"""Natural batching: while one batch is under way the batcher collects what arrives, and the next batch takes it all.

Alone, a caller waits for nobody. Under load many callers share one statement, one commit and one change of the stage's
row, and the busier it gets the larger the share.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
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
    answers: list[Answer | None]
    missing: int
    future: asyncio.Future[Sequence[Answer]]


@dataclass(slots=True, eq=False)
class _Share(Generic[Item, Answer]):
    """What waits in a batcher: a group, or those of its items that this batcher is to answer."""

    group: _Group[Item, Answer]
    indexes: Sequence[int]

    def fail(self, error: Exception) -> None:
        """Tell the caller: what other batchers do with the rest of the group is no news any more."""
        if not self.group.future.done():
            self.group.future.set_exception(error)


class Batcher(Generic[Item, Answer]):
    """One batch at a time, in the order of arrival.

    Args:
        work: Gets the items of a batch, gives for each in their order its answer, or another batcher that it goes on
            to. If it raises, every caller of the batch gets that error.
        limit: The most items in one batch; what one caller brings stays together even if it is more.
        on_idle: Called when no item waits any more.
    """

    def __init__(
        self,
        work: "Callable[[Sequence[Item]], Awaitable[Sequence[Answer | Batcher[Item, Answer]]]]",
        limit: int,
        on_idle: Callable[[], object] = lambda: None,
    ) -> None:
        self._work = work
        self._limit = limit
        self._on_idle = on_idle
        self._waiting: deque[_Share[Item, Answer]] = deque()
        self._runner: asyncio.Task[None] | None = None

    def submit(self, items: Sequence[Item]) -> asyncio.Future[Sequence[Answer]]:
        """Put items into the next batch; their answers to come. They are worked on even if the caller goes away."""
        future: asyncio.Future[Sequence[Answer]] = asyncio.get_running_loop().create_future()
        self._add(_Share(_Group(items, [None] * len(items), len(items), future), range(len(items))))
        return future

    def _add(self, share: _Share[Item, Answer]) -> None:
        self._waiting.append(share)
        if self._runner is None:
            # In no request's context: it serves others than the one that starts it.
            self._runner = asyncio.create_task(self._run(), context=Context())

    async def _run(self) -> None:
        while self._waiting:
            batch = self._next_batch()
            try:
                answers = iter(
                    await self._work([share.group.items[index] for share in batch for index in share.indexes])
                )
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the callers' answer
                for share in batch:
                    share.fail(error)
            else:
                for share in batch:
                    self._take(share, islice(answers, len(share.indexes)))
            if self._waiting:
                # One turn of the event loop: what the sockets hold by now joins the next batch.
                await asyncio.sleep(0)
        self._runner = None
        self._on_idle()

    @staticmethod
    def _take(share: _Share[Item, Answer], answers: "Iterable[Answer | Batcher[Item, Answer]]") -> None:
        """Keep the answers of a share, and let the rest of it go on."""
        group = share.group
        onward: defaultdict[Batcher[Item, Answer], list[int]] = defaultdict(list)
        for index, answer in zip(share.indexes, answers, strict=True):
            if isinstance(answer, Batcher):
                onward[cast("Batcher[Item, Answer]", answer)].append(index)
            else:
                group.answers[index] = answer
                group.missing -= 1
        for batcher, indexes in onward.items():
            batcher._add(_Share(group, indexes))  # noqa: SLF001 - of the same kind
        if group.missing == 0 and not group.future.done():
            group.future.set_result(cast("Sequence[Answer]", group.answers))

    def _next_batch(self) -> Sequence[_Share[Item, Answer]]:
        batch = [self._waiting.popleft()]
        size = len(batch[0].indexes)
        while self._waiting and (size := size + len(self._waiting[0].indexes)) <= self._limit:
            batch.append(self._waiting.popleft())
        return batch
