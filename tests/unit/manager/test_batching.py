"""Natural batching."""

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar

import pytest
from reference_manager.engine.dispatch.batching import Batcher


class Work:
    """Work that stands still until it is let go, and remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.started = asyncio.Event()

    async def __call__(self, items: Sequence[int]) -> Sequence[int]:
        """Run a batch."""
        self.batches.append(list(items))
        self.started.set()
        await self.gate.wait()
        if 13 in items:
            raise ValueError("unlucky")
        return [item * 10 for item in items]


async def test_alone_a_caller_waits_for_nobody() -> None:
    """What one caller brings is a batch of its own at once."""
    work = Work()
    work.gate.set()
    batcher = Batcher(work, 10)
    assert await batcher.submit([1, 2]) == [10, 20]
    assert work.batches == [[1, 2]]


async def test_what_arrives_meanwhile_is_the_next_batch() -> None:
    """While a batch is under way what others bring gathers, in its order, up to the limit, each caller's together."""
    work = Work()
    batcher = Batcher(work, 3)
    callers = [batcher.submit([0])]
    await work.started.wait()
    callers += [batcher.submit(items) for items in ([1, 2], [3], [4, 5], [6, 7, 8, 9])]
    await asyncio.sleep(0)
    work.gate.set()
    assert await asyncio.gather(*callers) == [[0], [10, 20], [30], [40, 50], [60, 70, 80, 90]]
    assert work.batches == [[0], [1, 2, 3], [4, 5], [6, 7, 8, 9]]


async def test_what_has_come_is_done_even_for_nobody() -> None:
    """A caller that goes away takes its items' answers from nobody, and its items from no batch."""
    work = Work()
    batcher = Batcher(work, 10)
    first = batcher.submit([1])
    await work.started.wait()
    batcher.submit([2]).cancel()
    stays = batcher.submit([3])
    work.gate.set()
    assert await asyncio.gather(first, stays) == [[10], [30]]
    assert work.batches == [[1], [2, 3]]


async def test_what_a_lane_cannot_answer_goes_on_to_another() -> None:
    """Items whose answer is a batcher are answered by that one, in their order, and the caller gets all at once."""
    work = {"one": Work(), "two": Work()}
    work["one"].gate.set()
    batchers = [Batcher(beyond, 10) for beyond in work.values()]

    async def only_even(items: Sequence[int]) -> Sequence[int | Batcher[int, int]]:
        return [batchers[item > 2] if item % 2 else item for item in items]

    batcher = Batcher(only_even, 10)
    parted, even, odd = (batcher.submit(items) for items in ([0, 1, 2, 3], [4], [1]))
    assert (await even, await odd) == ([4], [10])
    assert not parted.done()
    work["two"].gate.set()
    assert await parted == [0, 10, 2, 30]
    assert (work["one"].batches, work["two"].batches) == ([[1, 1]], [[3]])


async def test_a_lane_says_when_nobody_waits_any_more() -> None:
    """It is called once all items have their answer, and again after the next."""
    work = Work()
    work.gate.set()
    ends: list[int] = []
    batcher = Batcher(work, 1, on_idle=lambda: ends.append(len(work.batches)))
    assert await asyncio.gather(batcher.submit([1]), batcher.submit([2])) == [[10], [20]]
    assert await batcher.submit([3]) == [30]
    assert ends == [2, 3]


async def test_an_error_reaches_its_batch_alone() -> None:
    """Everybody in the failed batch is told; the next one runs."""
    work = Work()
    batcher = Batcher(work, 10)
    first = batcher.submit([13])
    await work.started.wait()
    second = batcher.submit([1])
    await asyncio.sleep(0)
    work.gate.set()
    with pytest.raises(ValueError, match="unlucky"):
        await first
    assert await second == [10]


async def test_a_batch_is_in_no_callers_context() -> None:
    """It serves many: what one caller's trace says does not hold for the others."""
    trace = ContextVar[str]("trace")
    trace.set("the caller's")

    async def look(items: Sequence[int]) -> Sequence[str]:
        return [trace.get("none") for _ in items]

    assert await Batcher(look, 10).submit([1]) == ["none"]
