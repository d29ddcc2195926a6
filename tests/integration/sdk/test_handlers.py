"""Handlers of all three styles have the same outcomes."""

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from jobnik_sdk import Completed, Failed, HandlerStyle, Released, Snoozed
from jobnik_sdk.execution.context import bind_context
from jobnik_sdk.execution.progress import Checkpoint, ProgressUpdate
from structlog.testing import capture_logs

from tests.integration.sdk import handler_functions
from tests.integration.sdk.handler_functions import Command
from tests.integration.sdk.handler_harness import Harness, context

_STYLES = list(HandlerStyle)
_SHORT = timedelta(milliseconds=50)
_LONG = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _released() -> Iterator[None]:
    handler_functions.released.clear()
    yield
    handler_functions.released.set()


@pytest.fixture(scope="module", params=_STYLES)
async def harness(request: pytest.FixtureRequest) -> AsyncIterator[Harness]:
    """A harness of each style, shared by all tests, as the tasks of a worker share a runner."""
    harness = Harness(request.param, concurrency=2)
    yield harness
    await harness.runner.close()


@pytest.fixture
async def open_harness() -> AsyncIterator[Callable[..., Harness]]:
    """Return a function that creates a harness for one test."""
    harnesses: list[Harness] = []

    def open_harness(*arguments: Any, **options: Any) -> Harness:  # noqa: ANN401 options of the harness
        harnesses.append(Harness(*arguments, **options))
        return harnesses[-1]

    yield open_harness
    handler_functions.released.set()
    for harness in harnesses:
        await harness.runner.close()


async def test_return_completes_the_task(harness: Harness) -> None:
    """The returned value is the result, as JSON."""
    assert await harness.run("increment", 41) == Completed(b'{"value":42}')


async def test_context_is_the_same_in_every_style(harness: Harness) -> None:
    """The context has the job, the stage, the task, the checkpoint and the trace."""
    current = context()
    bind_context(current)  # except in a process, the caller sets the trace
    assert await harness.runner.run(Command(do="describe"), current) == Completed(b'{"value":7}')


@pytest.mark.parametrize(
    ("do", "error_type", "message"),
    [
        ("raise_unpicklable", "UnpicklableError", "very strange"),
        ("exit_system", "SystemExit", "3"),
        ("return_invalid", "InvalidPayloadError", "result.value: "),
    ],
)
async def test_error_fails_the_attempt(harness: Harness, do: str, error_type: str, message: str) -> None:
    """An exception, or a result that does not fit its model, fails the attempt."""
    outcome = await harness.run(do)
    assert isinstance(outcome, Failed)
    assert (outcome.error_type, outcome.retryable, outcome.delay) == (error_type, True, None)
    assert outcome.message.startswith(message)
    assert error_type in outcome.stack


async def test_handler_decides_what_follows(harness: Harness) -> None:
    """RetryLater, DoNotRetry and Snooze decide what follows; RetryLater has the type and message of its cause."""
    later = await harness.run("retry_later")
    assert isinstance(later, Failed)
    assert (later.error_type, later.message, later.retryable) == ("UnpicklableError", "too many", True)
    assert later.delay == timedelta(minutes=5)
    never = await harness.run("do_not_retry")
    assert isinstance(never, Failed)
    assert (never.error_type, never.message, never.retryable) == ("DoNotRetry", "no such file", False)
    assert await harness.run("snooze") == Snoozed(timedelta(hours=1))


async def test_timeout_fails_the_attempt(harness: Harness) -> None:
    """A handler that exceeds its time limit is interrupted, and the error has its stack."""
    outcome = await harness.run("wait", limit=_SHORT)
    assert isinstance(outcome, Failed)
    assert (outcome.error_type, outcome.message) == ("TimeoutError", "The attempt took longer than 0.05 s.")
    assert outcome.retryable
    assert "handler_functions.py" in outcome.stack
    assert await harness.run("increment", limit=_LONG) == Completed(b'{"value":2}')


async def test_handler_may_decide_after_a_timeout(harness: Harness) -> None:
    """RetryLater also applies after a timeout."""
    _, running = await harness.start("retry_later_late", limit=timedelta(seconds=1))
    outcome = await running
    assert isinstance(outcome, Failed)
    assert (outcome.error_type, outcome.delay) == ("RetryLater", timedelta(minutes=1))


@pytest.mark.parametrize("do", ["wait", "raise_late"])
@pytest.mark.parametrize("reason", ["drain", "job aborted"])
async def test_cancellation_interrupts_the_handler(harness: Harness, do: str, reason: str) -> None:
    """Cancelled from another thread, the attempt is released with the first reason, whatever the handler raises."""
    current, running = await harness.start(do)
    thread = threading.Thread(target=current.cancellation.request, args=(reason,))
    thread.start()
    thread.join()
    current.cancellation.request("later")
    assert await running == Released(reason)
    await harness.finished(current)


async def test_cancelled_handler_may_finish(harness: Harness) -> None:
    """A handler that returns despite a cancellation completes its task."""
    current, running = await harness.start("return_late")
    current.cancellation.request("drain")
    assert await running == Completed(b'{"value":2}')


async def test_cancelled_before_the_start(harness: Harness) -> None:
    """If the attempt is cancelled before it starts, the handler is not called."""
    current = context()
    current.cancellation.request("lease lost")
    assert await harness.runner.run(Command(do="wait"), current) == Released("lease lost")


async def test_cancelled_run_cancels_the_attempt(harness: Harness) -> None:
    """If `run` itself is cancelled, the handler is cancelled too."""
    current, running = await harness.start("wait")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await harness.finished(current)
    assert current.cancellation.requested


@pytest.mark.parametrize("style", [HandlerStyle.THREAD, HandlerStyle.PROCESS])
async def test_cancellation_ends_a_wait(style: HandlerStyle, open_harness: Callable[..., Harness]) -> None:
    """`context.wait` ends immediately when the attempt is cancelled, and works again in the next attempt."""
    harness = open_harness(style, cancellation_timeout=_LONG)
    for reason in ("job aborted", "drain"):
        current, running = await harness.start("await")
        current.cancellation.request(reason)
        assert await running == Released(reason)
    assert await harness.run("request_summary") == Completed(b'{"value":0}')
    outcome = await harness.run("await", limit=_SHORT)
    assert isinstance(outcome, Failed)
    assert (outcome.error_type, outcome.message) == ("TimeoutError", "The attempt took longer than 0.05 s.")


@pytest.mark.parametrize("style", [HandlerStyle.THREAD, HandlerStyle.PROCESS])
async def test_clean_up_is_not_interrupted(style: HandlerStyle, open_harness: Callable[..., Harness]) -> None:
    """A handler that has noticed the cancellation itself is not interrupted again, and may still use `context.wait`."""
    harness = open_harness(style)
    for _ in range(5):
        current, running = await harness.start("clean_up_late")
        current.cancellation.request("drain")
        assert await running == Released("drain")
        assert current.state.checkpoint == Checkpoint(b'"cleaned up"')


async def test_progress_and_checkpoint_are_recorded(harness: Harness) -> None:
    """The latest progress and the latest checkpoint are available to the worker."""
    current = context()
    assert await harness.runner.run(Command(do="make_progress"), current) == Completed(b'{"value":0}')
    assert current.state.progress == ProgressUpdate(1.0, "convert")
    assert current.state.checkpoint == Checkpoint(b'{"downloaded": ["a.png"]}')


async def test_cancellation_affects_no_other_attempt(harness: Harness) -> None:
    """A cancellation at the very end of a handler does not reach the next attempt."""
    loop = asyncio.get_running_loop()
    for _ in range(300):
        current = context()
        running = asyncio.create_task(harness.runner.run(Command(), current))
        loop.call_later(random.uniform(0, 0.0008), current.cancellation.request, "drain")  # noqa: S311 any moment
        assert await running in (Completed(b'{"value":2}'), Released("drain"))
        assert await harness.run("increment") == Completed(b'{"value":2}')


@pytest.mark.parametrize("style", [HandlerStyle.ASYNC, HandlerStyle.THREAD])
@pytest.mark.parametrize("reason", ["drain", "timeout"])
async def test_handler_that_ignores_cancellation_is_abandoned(
    style: HandlerStyle, reason: str, open_harness: Callable[..., Harness]
) -> None:
    """After the timeout the attempt has an outcome, and a warning has the stack. It finishes when the handler ends."""
    harness = open_harness(style, cancellation_timeout=_SHORT)
    current, running = await harness.start("ignore_cancellation", _LONG)
    with capture_logs() as logs:
        current.cancellation.request(reason)
        outcome = await running
    if reason == "drain":
        assert outcome == Released("drain")
    else:
        assert isinstance(outcome, Failed)
        assert (outcome.error_type, outcome.message) == ("TimeoutError", "The attempt took longer than 3600 s.")
    (line,) = [line for line in logs if line["log_level"] == "warning"]
    assert (line["event"], line["task_id"]) == ("handler ignored cancellation, abandoned", str(current.task_id))
    assert "ignore_cancellation" in line["stack"]
    finished = asyncio.create_task(harness.finished(current))
    assert await harness.run("increment") == Completed(b'{"value":2}')
    assert not finished.done()
    handler_functions.released.set()
    await finished


async def test_close_cancels_attempts_in_progress(open_harness: Callable[..., Harness]) -> None:
    """A runner that is closed cancels its attempts and waits for them."""
    for style in _STYLES:
        harness = open_harness(style, cancellation_timeout=timedelta(seconds=5))
        current, running = await harness.start("wait")
        await harness.runner.close()
        assert await running == Released("the worker was closed")
        assert current.cancellation.requested
