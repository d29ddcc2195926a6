"""Middleware and listeners of a worker, on a scripted wire."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from jobnik_sdk import DoNotRetry, Handler, HandlerStyle, Snooze, StageType, TaskContext, Worker
from jobnik_sdk.errors import ConfigurationError
from jobnik_sdk.hooks import (
    BreakerOpened,
    Call,
    Completed,
    Ending,
    Event,
    Failed,
    QueueEmpty,
    Snoozed,
    TaskCompleted,
    TaskFailed,
    TaskSnoozed,
    TaskStarted,
)
from pydantic import BaseModel
from structlog.testing import capture_logs

from tests.unit.sdk.script import Script

Make = Callable[..., dict[str, Any]]
BLINK = timedelta(milliseconds=1)
completed: Any = Completed
failed: Any = Failed
snoozed: Any = Snoozed


class Word(BaseModel):
    """A task's data, and its result."""

    text: str = ""


words = StageType("words", task=Word, result=Word)


@pytest.fixture
async def script(task_json: Make) -> AsyncIterator[Script]:
    """The other end of a worker's client, with one task."""
    script = Script()
    script.claims.append(task_json(data={"text": "a"}))
    yield script
    await script.client.aclose()


def _worker(script: Script, function: Any, style: HandlerStyle = HandlerStyle.ASYNC, **hooks: Any) -> Worker:  # noqa: ANN401 passed on
    make: Any = Handler
    handler = make(words, function, style=style)
    return Worker(script.client, [handler], poll_initial_delay=BLINK, poll_max_delay=BLINK, **hooks)


async def echo(task: Word, _context: TaskContext) -> Word:
    """Give back what came."""
    return task


def plain_echo(task: Word, _context: TaskContext) -> Word:
    """Give back what came."""
    return task


@pytest.mark.parametrize(("style", "function"), [(HandlerStyle.ASYNC, echo), (HandlerStyle.THREAD, plain_echo)])
async def test_middleware_surrounds_the_handler(script: Script, style: HandlerStyle, function: Any) -> None:  # noqa: ANN401 of either style
    """The first is outermost; each sees the task, the context and the ending."""
    seen: list[str] = []

    def named(name: str) -> Any:  # noqa: ANN401 a middleware
        async def middleware(task: Word, context: TaskContext, call: Call) -> Ending:
            seen.append(f"{name} {task.text} {context.attempt}")
            ending = await call()
            seen.append(f"{name} {ending}")
            return ending

        return middleware

    await script.work(_worker(script, function, style, middleware=[named("outer"), named("inner")]))
    ending = Completed(b'{"text":"a"}')
    assert seen == ["outer a 1", "inner a 1", f"inner {ending}", f"outer {ending}"]
    assert [said for _, said in script.said] == ['{"status":"COMPLETED"}']


async def test_middleware_decides_how_an_attempt_ends(script: Script) -> None:
    """What it returns counts, and it need not call the handler."""

    async def refusing(_task: Word, _context: TaskContext, _call: Call) -> Ending:
        return Failed("Refused", "not today", stack="")

    await script.work(_worker(script, echo, middleware=[refusing]))
    assert [said for _, said in script.said] == ['{"status":"FAILED"}']


@pytest.mark.parametrize("said", [None, snoozed(5), failed("Late", "", "", delay=5), completed({})], ids=repr)
async def test_middleware_that_says_no_ending_fails_the_attempt(script: Script, said: Any) -> None:  # noqa: ANN401 wrong on purpose
    """Like one that forgets to return what `call` said: the report of such an ending could never be written."""
    failures: list[Event] = []

    async def forgetful(_task: Word, _context: TaskContext, call: Call) -> Any:  # noqa: ANN401 wrong on purpose
        await call()
        return said

    await script.work(_worker(script, echo, middleware=[forgetful], listeners=[failures.append]))
    (told,) = [event for event in failures if isinstance(event, TaskFailed)]
    assert told.failure.error_type == "TypeError"


async def test_what_middleware_says_fits_the_protocol(script: Script) -> None:
    """Its words are cut, and its delays bounded, like those of a handler."""
    failures: list[Event] = []

    async def verbose(_task: Word, _context: TaskContext, _call: Call) -> Ending:
        return Failed("E" * 300, "m" * 20_000, "", delay=timedelta(days=4000))

    await script.work(_worker(script, echo, middleware=[verbose], listeners=[failures.append]))
    (told,) = [event for event in failures if isinstance(event, TaskFailed)]
    ending = told.failure
    assert (len(ending.error_type), len(ending.message), ending.delay) == (200, 10_000, timedelta(days=365))


async def test_a_listener_is_a_plain_function(script: Script) -> None:
    """Nobody would await a coroutine function."""

    async def listen(_event: Event) -> None: ...

    with pytest.raises(ConfigurationError, match="A listener is a plain function"):
        _worker(script, echo, listeners=[listen])


async def test_middleware_that_raises_fails_the_attempt(script: Script) -> None:
    """As if the handler had raised; the worker goes on."""
    failures: list[Event] = []

    async def broken(_task: Word, _context: TaskContext, call: Call) -> Ending:
        await call()
        raise DoNotRetry("broken")

    await script.work(_worker(script, echo, middleware=[broken], listeners=[failures.append]))
    (told,) = [event for event in failures if isinstance(event, TaskFailed)]
    assert (told.failure.error_type, told.failure.retryable) == ("DoNotRetry", False)


async def test_middleware_that_waits_is_cancelled_by_a_drain(script: Script) -> None:
    """It does not hold up the end of the worker."""
    waiting = asyncio.Event()

    async def stuck(_task: Word, _context: TaskContext, call: Call) -> Ending:
        waiting.set()
        await asyncio.Event().wait()
        return await call()

    worker = _worker(script, echo, middleware=[stuck], drain_timeout=timedelta(milliseconds=10))
    running = asyncio.create_task(worker.run())
    await waiting.wait()
    worker.stop()
    await running


async def test_listeners_hear_what_happens(script: Script, task_json: Make) -> None:
    """Started, completed, failed, put off; the queue's end once, however often it is seen."""
    script.claims += [task_json(data={"text": "fail"}), task_json(data={"text": "snooze"})]
    heard: list[Event] = []

    async def handler(task: Word, _context: TaskContext) -> Word:
        if task.text == "fail":
            raise ValueError(task.text)
        if task.text == "snooze":
            raise Snooze(timedelta(seconds=1))
        return task

    await script.work(_worker(script, handler, listeners=[heard.append]))
    kinds = [type(event) for event in heard if not isinstance(event, QueueEmpty)]
    assert kinds == [TaskStarted, TaskCompleted, TaskStarted, TaskFailed, TaskStarted, TaskSnoozed]
    (completed,) = [event for event in heard if isinstance(event, TaskCompleted)]
    assert completed.result == b'{"text":"a"}'
    assert sum(isinstance(event, QueueEmpty) for event in heard) == 1


async def test_a_listener_that_raises_harms_nobody(script: Script) -> None:
    """It is logged, and the others hear what happens."""
    heard: list[Event] = []

    def broken(event: Event) -> None:
        raise ValueError(event)

    with capture_logs() as logs:
        await script.work(_worker(script, echo, listeners=[broken, heard.append]))
    assert TaskCompleted in [type(event) for event in heard]
    assert "a listener failed" in [line["event"] for line in logs]


async def test_a_handler_that_always_fails_stops_the_claiming(script: Script, task_json: Make) -> None:
    """After ten failures its breaker opens, and the tasks that wait stay with the manager."""
    script.claims += [task_json(data={"text": "fail"}) for _ in range(20)]
    opened = threading.Event()
    heard: list[Event] = []

    def listen(event: Event) -> None:
        heard.append(event)
        if isinstance(event, BreakerOpened):
            opened.set()
            worker.stop()

    async def handler(task: Word, _context: TaskContext) -> Word:
        raise ValueError(task.text)

    worker = _worker(script, handler, listeners=[listen])
    await worker.run()
    assert opened.is_set()
    assert BreakerOpened("words", "handler") in heard
    assert len(script.said) == 10


@pytest.mark.usefixtures("pauses")  # the client would wait between its attempts at each claim
async def test_a_manager_in_trouble_opens_the_other_breaker(script: Script) -> None:
    """Ten claims that fail, and the manager is left alone for a while."""
    script.claims.clear()
    script.before_claim = _raise
    heard: list[Event] = []

    def listen(event: Event) -> None:
        heard.append(event)
        worker.stop()

    worker = _worker(script, echo, listeners=[listen])
    await worker.run()
    assert heard == [BreakerOpened("words", "dequeue")]


def _raise() -> None:
    raise httpx2.ConnectError("refused")
