"""Natural batching: while one batch is under way the lane collects what arrives, and the next batch takes it all.

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
class _Part(Generic[Item, Answer]):
    """What waits in a lane: a group, or those of its items that this lane is to answer."""

    group: _Group[Item, Answer]
    places: Sequence[int]

    def fail(self, error: Exception) -> None:
        """Tell the caller: what other lanes do with the rest of the group is no news any more."""
        if not self.group.future.done():
            self.group.future.set_exception(error)


class Lane(Generic[Item, Answer]):
    """One batch at a time, in the order of arrival.

    Args:
        work: Gets the items of a batch, gives for each in their order its answer, or another lane that it goes on to.
            If it raises, every caller of the batch gets that error.
        limit: The most items in one batch; what one caller brings stays together even if it is more.
        on_idle: Called when no item waits any more.
    """

    def __init__(
        self,
        work: "Callable[[Sequence[Item]], Awaitable[Sequence[Answer | Lane[Item, Answer]]]]",
        limit: int,
        on_idle: Callable[[], object] = lambda: None,
    ) -> None:
        self._work = work
        self._limit = limit
        self._on_idle = on_idle
        self._waiting: deque[_Part[Item, Answer]] = deque()
        self._runner: asyncio.Task[None] | None = None

    def submit(self, items: Sequence[Item]) -> asyncio.Future[Sequence[Answer]]:
        """Put items into the next batch; their answers to come. They are worked on even if the caller goes away."""
        future: asyncio.Future[Sequence[Answer]] = asyncio.get_running_loop().create_future()
        self._add(_Part(_Group(items, [None] * len(items), len(items), future), range(len(items))))
        return future

    def _add(self, part: _Part[Item, Answer]) -> None:
        self._waiting.append(part)
        if self._runner is None:
            # In no request's context: it serves others than the one that starts it.
            self._runner = asyncio.create_task(self._run(), context=Context())

    async def _run(self) -> None:
        while self._waiting:
            batch = self._next_batch()
            try:
                answers = iter(await self._work([part.group.items[place] for part in batch for place in part.places]))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the callers' answer
                for part in batch:
                    part.fail(error)
            else:
                for part in batch:
                    self._take(part, islice(answers, len(part.places)))
            if self._waiting:
                # One turn of the event loop: what the sockets hold by now joins the next batch.
                await asyncio.sleep(0)
        self._runner = None
        self._on_idle()

    @staticmethod
    def _take(part: _Part[Item, Answer], answers: "Iterable[Answer | Lane[Item, Answer]]") -> None:
        """Keep the answers of a part, and let the rest of it go on."""
        group = part.group
        onward: defaultdict[Lane[Item, Answer], list[int]] = defaultdict(list)
        for place, answer in zip(part.places, answers, strict=True):
            if isinstance(answer, Lane):
                onward[cast("Lane[Item, Answer]", answer)].append(place)
            else:
                group.answers[place] = answer
                group.missing -= 1
        for lane, places in onward.items():
            lane._add(_Part(group, places))  # noqa: SLF001 - of the same kind
        if group.missing == 0 and not group.future.done():
            group.future.set_result(cast("Sequence[Answer]", group.answers))

    def _next_batch(self) -> Sequence[_Part[Item, Answer]]:
        batch = [self._waiting.popleft()]
        size = len(batch[0].places)
        while self._waiting and (size := size + len(self._waiting[0].places)) <= self._limit:
            batch.append(self._waiting.popleft())
        return batch
