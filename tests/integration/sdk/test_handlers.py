"""Handlers of all three styles: however an attempt ends, it is told in the same way."""

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from jobnik_sdk import Completed, Failed, HandlerStyle, Released, Snoozed
from jobnik_sdk.execution.context import enter
from jobnik_sdk.execution.progress import Checkpoint, Progress
from structlog.testing import capture_logs

from tests.integration.sdk import handler_functions
from tests.integration.sdk.handler_functions import Order
from tests.integration.sdk.handler_site import Site, context

_STYLES = list(HandlerStyle)
_BLINK = timedelta(milliseconds=50)
_LONG = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _released() -> Iterator[None]:
    handler_functions.released.clear()
    yield
    handler_functions.released.set()


@pytest.fixture(scope="module", params=_STYLES)
async def site(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    """A site in each style, which all tests share, as the tasks of a worker do."""
    site = Site(request.param, concurrency=2)
    yield site
    await site.runner.close()


@pytest.fixture
async def open_site() -> AsyncIterator[Callable[..., Site]]:
    """Return a function that makes a site of a test's own."""
    sites: list[Site] = []

    def open_site(*arguments: Any, **options: Any) -> Site:  # noqa: ANN401 passed on
        sites.append(Site(*arguments, **options))
        return sites[-1]

    yield open_site
    handler_functions.released.set()
    for site in sites:
        await site.runner.close()


async def test_return_completes(site: Site) -> None:
    """What a handler returns is the result, as a JSON document."""
    assert await site.run("answer", 41) == Completed(b'{"value":42}')


async def test_context_is_the_same_everywhere(site: Site) -> None:
    """A handler sees its job, stage, task, checkpoint and trace."""
    current = context()
    enter(current)  # the trace is the caller's to enter, except in a process
    assert await site.runner.run(Order(do="describe"), current) == Completed(b'{"value":7}')


@pytest.mark.parametrize(
    ("do", "error_type", "message"),
    [
        ("complain", "PeculiarError", "very peculiar"),
        ("leave", "SystemExit", "3"),
        ("answer_wrongly", "InvalidPayloadError", "result.value: "),
    ],
)
async def test_error_fails(site: Site, do: str, error_type: str, message: str) -> None:
    """Whatever a handler raises, and a result that does not fit its model, fail the attempt in words."""
    ending = await site.run(do)
    assert isinstance(ending, Failed)
    assert (ending.error_type, ending.retryable, ending.delay) == (error_type, True, None)
    assert ending.message.startswith(message)
    assert error_type in ending.stack


async def test_handler_says_how_it_goes_on(site: Site) -> None:
    """RetryLater, DoNotRetry and Snooze say what shall follow; RetryLater speaks for what it was raised from."""
    later = await site.run("retry_later")
    assert isinstance(later, Failed)
    assert (later.error_type, later.message, later.retryable) == ("PeculiarError", "too many", True)
    assert later.delay == timedelta(minutes=5)
    never = await site.run("do_not_retry")
    assert isinstance(never, Failed)
    assert (never.error_type, never.message, never.retryable) == ("DoNotRetry", "no such file", False)
    assert await site.run("snooze") == Snoozed(timedelta(hours=1))


async def test_timeout_fails(site: Site) -> None:
    """A handler that takes too long is interrupted, and fails with where it was."""
    ending = await site.run("wait", limit=_BLINK)
    assert isinstance(ending, Failed)
    assert (ending.error_type, ending.message) == ("TimeoutError", "The attempt took longer than 0.05 s.")
    assert ending.retryable
    assert "handler_functions.py" in ending.stack
    assert await site.run("answer", limit=_LONG) == Completed(b'{"value":2}')


async def test_timeout_may_be_answered(site: Site) -> None:
    """What a handler says about its next attempt counts also after a timeout."""
    _, running = await site.start("put_off_late", limit=timedelta(seconds=1))
    ending = await running
    assert isinstance(ending, Failed)
    assert (ending.error_type, ending.delay) == ("RetryLater", timedelta(minutes=1))


@pytest.mark.parametrize("do", ["wait", "raise_late"])
@pytest.mark.parametrize("reason", ["drain", "job aborted"])
async def test_cancellation_reaches_the_handler(site: Site, do: str, reason: str) -> None:
    """Asked to end from another thread, whatever a handler raises then, the attempt was cancelled; the first counts."""
    current, running = await site.start(do)
    asking = threading.Thread(target=current.cancellation.request, args=(reason,))
    asking.start()
    asking.join()
    current.cancellation.request("later")
    assert await running == Released(reason)
    await site.freed(current)


async def test_cancelled_handler_may_finish(site: Site) -> None:
    """A handler that returns although it was asked to end has done its work."""
    current, running = await site.start("return_late")
    current.cancellation.request("drain")
    assert await running == Completed(b'{"value":2}')


async def test_cancelled_before_its_begin(site: Site) -> None:
    """A handler is not called that was asked to end before."""
    current = context()
    current.cancellation.request("lease lost")
    assert await site.runner.run(Order(do="wait"), current) == Released("lease lost")


async def test_cancelled_run_asks_the_handler_to_end(site: Site) -> None:
    """Whoever runs an attempt may be cancelled: then the handler is asked to end, and nothing is left."""
    current, running = await site.start("wait")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await site.freed(current)
    assert current.cancellation.requested


@pytest.mark.parametrize("style", [HandlerStyle.THREAD, HandlerStyle.PROCESS])
async def test_cancellation_ends_a_wait(style: HandlerStyle, open_site: Callable[..., Site]) -> None:
    """A plain function that waits for something awaited is interrupted at once; the next one waits as well as ever."""
    site = open_site(style, grace=_LONG)
    for reason in ("job aborted", "drain"):
        current, running = await site.start("await")
        current.cancellation.request(reason)
        assert await running == Released(reason)
    assert await site.run("look_for_manager") == Completed(b'{"value":0}')
    ending = await site.run("await", limit=_BLINK)
    assert isinstance(ending, Failed)
    assert (ending.error_type, ending.message) == ("TimeoutError", "The attempt took longer than 0.05 s.")


@pytest.mark.parametrize("style", [HandlerStyle.THREAD, HandlerStyle.PROCESS])
async def test_cleaning_up_is_not_interrupted(style: HandlerStyle, open_site: Callable[..., Site]) -> None:
    """A handler that has found out by itself that it is to end is not told again, and may wait for its last things."""
    site = open_site(style)
    for _ in range(5):
        current, running = await site.start("clean_up_late")
        current.cancellation.request("drain")
        assert await running == Released("drain")
        assert current.notes.checkpoint == Checkpoint(b'"cleaned up"')


async def test_progress_is_noted(site: Site) -> None:
    """Phases add up to the progress of the task, and the newest of it is known, with the newest checkpoint."""
    current = context()
    assert await site.runner.run(Order(do="make_progress"), current) == Completed(b'{"value":0}')
    assert current.notes.progress == Progress(1.0, "convert")
    assert current.notes.checkpoint == Checkpoint(b'{"downloaded": ["a.png"]}')


async def test_cancellation_hits_nobody_else(site: Site) -> None:
    """However a cancellation and the end of a handler meet, the attempts after it know nothing of it."""
    loop = asyncio.get_running_loop()
    for _ in range(300):
        current = context()
        running = asyncio.create_task(site.runner.run(Order(), current))
        loop.call_later(random.uniform(0, 0.0008), current.cancellation.request, "drain")  # noqa: S311 any moment
        assert await running in (Completed(b'{"value":2}'), Released("drain"))
        assert await site.run("answer") == Completed(b'{"value":2}')


@pytest.mark.parametrize("style", [HandlerStyle.ASYNC, HandlerStyle.THREAD])
@pytest.mark.parametrize("reason", ["drain", "timeout"])
async def test_stubborn_handler_is_left_behind(
    style: HandlerStyle, reason: str, open_site: Callable[..., Site]
) -> None:
    """After the grace the attempt is answered, with a warning that shows where it hangs; it is settled when it ends."""
    site = open_site(style, grace=_BLINK)
    current, running = await site.start("be_stubborn", _LONG)
    with capture_logs() as logs:
        current.cancellation.request(reason)
        ending = await running
    if reason == "drain":
        assert ending == Released("drain")
    else:
        assert isinstance(ending, Failed)
        assert (ending.error_type, ending.message) == ("TimeoutError", "The attempt took longer than 3600 s.")
    (line,) = [line for line in logs if line["log_level"] == "warning"]
    assert (line["event"], line["task_id"]) == ("handler ignores its cancellation", str(current.task_id))
    assert "be_stubborn" in line["stack"]
    settled = asyncio.create_task(site.freed(current))
    assert await site.run("answer") == Completed(b'{"value":2}')
    assert not settled.done()
    handler_functions.released.set()
    await settled


async def test_closing_ends_what_is_under_way(open_site: Callable[..., Site]) -> None:
    """A runner that is closed asks its handlers to end, and does not wait for those that were left behind."""
    for style in _STYLES:
        site = open_site(style, grace=timedelta(seconds=5))
        current, running = await site.start("wait")
        await site.runner.close()
        assert await running == Released("the worker was closed")
        assert current.cancellation.requested
