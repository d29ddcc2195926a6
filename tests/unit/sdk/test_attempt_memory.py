"""What an attempt leaves behind when its report has been accepted."""

import gc
import weakref
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from jobnik_sdk import CallNext, Handler, HandlerStyle, Outcome, TaskContext, Worker

from tests.unit.sdk.script import ScriptedManager, Word, words

Make = Callable[..., dict[str, Any]]
MILLISECOND = timedelta(milliseconds=1)
_data: list[weakref.ref[Word]] = []


async def echo(task: Word, _context: TaskContext) -> Word:
    """Return the data as the result."""
    _data.append(weakref.ref(task))
    return task


async def fail(task: Word, _context: TaskContext) -> Word:
    """Raise an exception."""
    _data.append(weakref.ref(task))
    raise ValueError(task.text)


def plain_echo(task: Word, _context: TaskContext) -> Word:
    """Return the data as the result."""
    _data.append(weakref.ref(task))
    return task


async def call_handler(_task: Word, _context: TaskContext, call_next: CallNext) -> Outcome:
    """Add nothing to the call of the handler."""
    return await call_next()


@pytest.fixture
def _no_collections() -> Iterator[None]:
    _data.clear()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collections")
@pytest.mark.parametrize("middleware", [[], [call_handler]], ids=["alone", "middleware"])
@pytest.mark.parametrize("function", [echo, fail, plain_echo])
async def test_an_attempt_is_freed_without_a_garbage_collection(
    function: Any,  # noqa: ANN401 of any style
    middleware: list[Any],
    manager: ScriptedManager,
    task_json: Make,
) -> None:
    """Collections would cost a worker a third of its time."""
    make: Any = Handler
    handler = make(words, function, style=HandlerStyle.THREAD if function is plain_echo else HandlerStyle.ASYNC)
    manager.claims.extend([task_json(data={"text": "a"}), task_json(data={"text": "b"})])
    worker = Worker(
        manager.client, [handler], middleware=middleware, poll_initial_delay=MILLISECOND, poll_max_delay=MILLISECOND
    )
    await manager.run_until_empty(worker)
    assert len(manager.reports) == 2
    assert [reference() for reference in _data] == [None, None]
