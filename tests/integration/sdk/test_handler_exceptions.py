"""An exception of any class ends its attempt alone, and is reported by its name."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from jobnik_sdk import Completed, Failed, Handler, HandlerStyle
from jobnik_sdk.execution.coroutines import CoroutineRunner
from jobnik_sdk.execution.runner import Runner
from jobnik_sdk.execution.runners import runner_for

from tests.integration.sdk.handler_harness import context
from tests.integration.sdk.raising_functions import (
    EXCEPTIONS,
    TYPES,
    Choice,
    choices,
    raise_it,
    raise_it_async,
    raise_it_in_a_task,
)


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
    """The attempt fails with the type of the exception; the event loop, the thread and the process go on."""
    outcome = await runner.run(Choice(name=name), context())
    assert isinstance(outcome, Failed)
    # Python does not let a coroutine raise StopIteration.
    converted = name == "StopIteration" and isinstance(runner, CoroutineRunner)
    assert outcome.error_type == ("RuntimeError" if converted else TYPES.get(name, name))
    assert outcome.retryable == (name != "DoNotRetry")
    assert outcome.stack
    assert await runner.run(Choice(name=""), context()) == Completed(b"{}")
