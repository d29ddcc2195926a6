"""An exception of any class ends its attempt alone, and is reported by its name."""

import asyncio
import ctypes
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any, NoReturn, TypeAlias

import pytest
from jobnik_sdk import Completed, Failed, Handler, HandlerStyle, Outcome, TaskContext
from jobnik_sdk.execution.coroutines import CoroutineRunner
from jobnik_sdk.execution.runner import Runner
from jobnik_sdk.execution.runners import runner_for

from tests.integration.sdk.handler_harness import context
from tests.integration.sdk.raising_functions import (
    EXCEPTIONS,
    TYPES,
    Anything,
    Choice,
    choices,
    raise_it,
    raise_it_async,
    raise_it_in_a_task,
)

RunInThread: TypeAlias = Callable[[Callable[[], None]], Awaitable[tuple[Outcome, int]]]


@pytest.fixture(
    scope="module",
    params=[
        (HandlerStyle.ASYNC, raise_it_async),
        (HandlerStyle.ASYNC, raise_it_in_a_task),
        (HandlerStyle.THREAD, raise_it),
        (HandlerStyle.PROCESS, raise_it),
    ],
    ids=lambda parameter: parameter[1].__name__,
)
async def runner(request: pytest.FixtureRequest) -> AsyncIterator[Runner]:
    """A runner of each style; one attempt after the other uses the same thread or process."""
    style, function = request.param
    make: Any = Handler
    runner = runner_for(make(choices, function, style=style), timedelta(seconds=5))
    yield runner
    await runner.close()


@pytest.mark.parametrize("name", EXCEPTIONS)
async def test_every_exception_fails_its_attempt(runner: Runner, name: str) -> None:
    """The attempt fails with the type of the exception; the event loop, the thread and the process continue."""
    outcome = await runner.run(Choice(name=name), context())
    assert isinstance(outcome, Failed)
    # Python does not let a coroutine raise StopIteration.
    converted = name == "StopIteration" and isinstance(runner, CoroutineRunner)
    assert outcome.error_type == ("RuntimeError" if converted else TYPES.get(name, name))
    assert outcome.retryable == (name != "DoNotRetry")
    assert outcome.stack
    assert await runner.run(Choice(name=""), context()) == Completed(b"{}")


@pytest.fixture
async def run_in_thread() -> AsyncIterator[RunInThread]:
    """Return a function that runs a handler in a thread, which is reused, and returns the outcome and the thread."""
    idents: list[int] = []
    actions: list[Callable[[], None]] = []

    def act(_task: Choice, _context: TaskContext) -> Anything:
        idents.append(threading.get_ident())
        actions.pop()()
        return Anything()

    runner = runner_for(Handler(choices, act, style=HandlerStyle.THREAD))

    async def run(action: Callable[[], None]) -> tuple[Outcome, int]:
        actions.append(action)
        outcome = await asyncio.wait_for(runner.run(Choice(name=""), context()), 30)
        return outcome, idents[-1]

    yield run
    await runner.close()


async def test_an_exception_that_arrives_too_late_does_not_end_the_thread(run_in_thread: RunInThread) -> None:
    """Libraries that limit the time of a call raise an exception in its thread, perhaps after the call."""
    outcome, thread = await run_in_thread(lambda: None)
    assert outcome == Completed(b"{}")
    for error in (ValueError, SystemExit):
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))
        assert await run_in_thread(lambda: None) == (Completed(b"{}"), thread)


async def test_an_exception_outside_of_the_handler_fails_its_attempt(run_in_thread: RunInThread) -> None:
    """A trace function may raise an exception in the first function that is called after the handler."""

    def fail(*_: object) -> NoReturn:
        raise KeyError

    outcome, thread = await run_in_thread(lambda: sys.settrace(fail))
    assert isinstance(outcome, Failed)
    assert outcome.error_type == "KeyError"
    assert await run_in_thread(lambda: None) == (Completed(b"{}"), thread)
