"""The batcher: calls that arrive while a batch runs are collected into the next batch."""

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar

import pytest
from reference_manager.engine.dispatch.batching import Batcher


class BlockedWork:
    """Work that blocks until its gate opens, and records its batches."""

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


async def test_a_single_call_runs_at_once() -> None:
    """The items of a single caller form a batch that runs immediately."""
    work = BlockedWork()
    work.gate.set()
    batcher = Batcher(work, 10)
    assert await batcher.submit([1, 2]) == [10, 20]
    assert work.batches == [[1, 2]]


async def test_calls_during_a_batch_form_the_next_batch() -> None:
    """Calls that arrive during a batch are batched in order, up to the limit, without splitting a caller's items."""
    work = BlockedWork()
    batcher = Batcher(work, 3)
    callers = [batcher.submit([0])]
    await work.started.wait()
    callers += [batcher.submit(items) for items in ([1, 2], [3], [4, 5], [6, 7, 8, 9])]
    await asyncio.sleep(0)
    work.gate.set()
    assert await asyncio.gather(*callers) == [[0], [10, 20], [30], [40, 50], [60, 70, 80, 90]]
    assert work.batches == [[0], [1, 2, 3], [4, 5], [6, 7, 8, 9]]


async def test_items_of_a_cancelled_caller_are_still_processed() -> None:
    """If a caller is cancelled, its items stay in their batch and only their results are dropped."""
    work = BlockedWork()
    batcher = Batcher(work, 10)
    first = batcher.submit([1])
    await work.started.wait()
    batcher.submit([2]).cancel()
    stays = batcher.submit([3])
    work.gate.set()
    assert await asyncio.gather(first, stays) == [[10], [30]]
    assert work.batches == [[1], [2, 3]]


async def test_an_item_can_be_passed_on_to_another_batcher() -> None:
    """Items whose result is a batcher go to that batcher, and the caller gets all results at once, in order."""
    work = {"one": BlockedWork(), "two": BlockedWork()}
    work["one"].gate.set()
    batchers = [Batcher(beyond, 10) for beyond in work.values()]

    async def only_even(items: Sequence[int]) -> Sequence[int | Batcher[int, int]]:
        return [batchers[item > 2] if item % 2 else item for item in items]

    batcher = Batcher(only_even, 10)
    mixed, even, odd = (batcher.submit(items) for items in ([0, 1, 2, 3], [4], [1]))
    assert (await even, await odd) == ([4], [10])
    assert not mixed.done()
    work["two"].gate.set()
    assert await mixed == [0, 10, 2, 30]
    assert (work["one"].batches, work["two"].batches) == ([[1, 1]], [[3]])


async def test_on_idle_is_called_when_no_item_waits() -> None:
    """`on_idle` is called once when every item has its result, and again after the next item."""
    work = BlockedWork()
    work.gate.set()
    ends: list[int] = []
    batcher = Batcher(work, 1, on_idle=lambda: ends.append(len(work.batches)))
    assert await asyncio.gather(batcher.submit([1]), batcher.submit([2])) == [[10], [20]]
    assert await batcher.submit([3]) == [30]
    assert ends == [2, 3]


async def test_an_error_affects_only_its_batch() -> None:
    """Every caller in a failed batch gets the error, and the next batch runs."""
    work = BlockedWork()
    batcher = Batcher(work, 10)
    first = batcher.submit([13])
    await work.started.wait()
    second = batcher.submit([1])
    await asyncio.sleep(0)
    work.gate.set()
    with pytest.raises(ValueError, match="unlucky"):
        await first
    assert await second == [10]


async def test_a_batch_does_not_inherit_a_callers_context() -> None:
    """A batch serves several callers, so the context of one caller, such as its trace, does not apply to it."""
    trace = ContextVar[str]("trace")
    trace.set("the caller's")

    async def read_trace(items: Sequence[int]) -> Sequence[str]:
        return [trace.get("none") for _ in items]

    assert await Batcher(read_trace, 10).submit([1]) == ["none"]


async def test_a_caller_gets_partial_results_after_the_first_one() -> None:
    """Unfinished items have no result, failed ones have their error, and items without a waiting caller are dropped."""
    slow, fast = BlockedWork(), BlockedWork()
    fast.gate.set()
    slow_batcher = Batcher(slow, 10)
    failing = Batcher(fast, 10)

    async def forward(items: Sequence[int]) -> "Sequence[int | Batcher[int, int]]":
        return [{1: slow_batcher, 13: failing}.get(item, item * 10) for item in items]

    batcher: Batcher[int, int] = Batcher(forward, 10)
    blocking = slow_batcher.submit([2])
    await slow.started.wait()
    one, thirteen, three = await batcher.submit_partial([1, 13, 3], 0.01)
    assert (one, three) == (None, 30)
    assert isinstance(thirteen, ValueError)
    slow.gate.set()
    assert await blocking == [20]
    assert await slow_batcher.submit([4]) == [40]
    assert slow.batches == [[2], [4]]


async def test_a_caller_of_items_that_all_fail_gets_the_error() -> None:
    """Partial results without a result are an error."""
    work = BlockedWork()
    work.gate.set()
    with pytest.raises(ValueError, match="unlucky"):
        await Batcher(work, 10).submit_partial([13, 14], 0.01)


async def test_a_caller_waits_for_the_first_result() -> None:
    """No caller is answered before it has at least one result."""
    work = BlockedWork()
    caller = Batcher(work, 10).submit_partial([1, 2], 0)
    await work.started.wait()
    for _ in range(3):
        await asyncio.sleep(0)
    assert not caller.done()
    work.gate.set()
    assert await caller == [10, 20]
