"""Middleware of a worker, on a scripted manager."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from jobnik_sdk import (
    CallNext,
    Cancelled,
    Completed,
    DoNotRetry,
    Event,
    Failed,
    Handler,
    HandlerStyle,
    Outcome,
    Snoozed,
    TaskContext,
    TaskFailed,
    Worker,
)
from jobnik_sdk.worker.middleware import Middleware

from tests.unit.sdk.script import ScriptedManager, Word, words

Make = Callable[..., dict[str, Any]]
MILLISECOND = timedelta(milliseconds=1)
# Untyped, to create outcomes that a type checker would refuse.
completed: Any = Completed
failed: Any = Failed
snoozed: Any = Snoozed


@pytest.fixture
def manager(manager: ScriptedManager, task_json: Make) -> ScriptedManager:
    """A manager with one task."""
    manager.claims.append(task_json(data={"text": "a"}))
    return manager


async def echo(task: Word, _context: TaskContext) -> Word:
    """Return the data as the result."""
    return task


def plain_echo(task: Word, _context: TaskContext) -> Word:
    """Return the data as the result."""
    return task


class WorkerUnderTest:
    """A worker with a handler and middleware, and the failures that it emitted."""

    def __init__(
        self,
        manager: ScriptedManager,
        *middleware: Middleware,
        function: Any = echo,  # noqa: ANN401 of any style
        style: HandlerStyle = HandlerStyle.ASYNC,
        **options: Any,  # noqa: ANN401 passed on
    ) -> None:
        new_handler: Any = Handler
        self.failures: list[Failed] = []
        self.worker = Worker(
            manager.client,
            [new_handler(words, function, style=style)],
            middleware=middleware,
            listeners=[self._listen],
            poll_initial_delay=MILLISECOND,
            poll_max_delay=MILLISECOND,
            **options,
        )

    def _listen(self, event: Event) -> None:
        if isinstance(event, TaskFailed):
            self.failures.append(event.outcome)


@pytest.mark.parametrize(("style", "function"), [(HandlerStyle.ASYNC, echo), (HandlerStyle.THREAD, plain_echo)])
async def test_middleware_runs_around_the_handler(manager: ScriptedManager, style: HandlerStyle, function: Any) -> None:  # noqa: ANN401 of either style
    """The first middleware is the outermost. Each receives the task, the context and the outcome."""
    seen: list[str] = []

    def named(name: str) -> Middleware:
        async def middleware(task: Word, context: TaskContext, call_next: CallNext) -> Outcome:
            seen.append(f"{name} {task.text} {context.attempt}")
            outcome = await call_next()
            seen.append(f"{name} {outcome}")
            return outcome

        return middleware

    subject = WorkerUnderTest(manager, named("outer"), named("inner"), function=function, style=style)
    await manager.run_until_empty(subject.worker)
    outcome = Completed(b'{"text":"a"}')
    assert seen == ["outer a 1", "inner a 1", f"inner {outcome}", f"outer {outcome}"]
    assert manager.reported == ['{"status":"COMPLETED"}']


async def test_middleware_can_skip_the_handler(manager: ScriptedManager) -> None:
    """The outcome that it returns is reported."""

    async def refuse(_task: Word, _context: TaskContext, _call_next: CallNext) -> Outcome:
        return Failed("Refused", "not today", stack="")

    subject = WorkerUnderTest(manager, refuse)
    await manager.run_until_empty(subject.worker)
    assert manager.reported == ['{"status":"FAILED"}']


@pytest.mark.parametrize("value", [None, snoozed(5), failed("Late", "", "", delay=5), completed({})], ids=repr)
async def test_an_invalid_outcome_fails_the_attempt(manager: ScriptedManager, value: Any) -> None:  # noqa: ANN401 wrong on purpose
    """A middleware that forgets to return the outcome, or returns an invalid one, does not block the reports."""

    async def forget(_task: Word, _context: TaskContext, call_next: CallNext) -> Any:  # noqa: ANN401 wrong on purpose
        await call_next()
        return value

    subject = WorkerUnderTest(manager, forget)
    await manager.run_until_empty(subject.worker)
    assert [failure.error_type for failure in subject.failures] == ["TypeError"]


async def test_outcomes_of_middleware_are_limited(manager: ScriptedManager) -> None:
    """Long texts are cut and long delays are reduced to the protocol's limits, as for a handler."""

    async def exaggerate(_task: Word, _context: TaskContext, _call_next: CallNext) -> Outcome:
        return Failed("E" * 300, "m" * 20_000, "", delay=timedelta(days=4000))

    subject = WorkerUnderTest(manager, exaggerate)
    await manager.run_until_empty(subject.worker)
    (failure,) = subject.failures
    assert (len(failure.error_type), len(failure.message), failure.delay) == (200, 10_000, timedelta(days=365))


async def test_middleware_that_raises_fails_the_attempt(manager: ScriptedManager) -> None:
    """The exception counts as if the handler had raised it, and the worker continues."""

    async def fail(_task: Word, _context: TaskContext, call_next: CallNext) -> Outcome:
        await call_next()
        raise DoNotRetry("broken")

    subject = WorkerUnderTest(manager, fail)
    await manager.run_until_empty(subject.worker)
    assert [(failure.error_type, failure.retryable) for failure in subject.failures] == [("DoNotRetry", False)]


class UnusualError(BaseException):
    """An exception that is not an `Exception`."""


@pytest.mark.parametrize(
    "error", [Cancelled("given up"), SystemExit(1), UnusualError()], ids=lambda error: type(error).__name__
)
async def test_middleware_may_raise_anything(manager: ScriptedManager, error: BaseException) -> None:
    """An exception that is not an `Exception` also ends the attempt: it is reported, and its slot is free again."""

    async def give_up(_task: Word, _context: TaskContext, call_next: CallNext) -> Outcome:
        await call_next()
        raise error

    subject = WorkerUnderTest(manager, give_up)
    await manager.run_until_empty(subject.worker)
    assert [failure.error_type for failure in subject.failures] == [type(error).__name__]


async def test_middleware_that_waits_is_cancelled_by_a_drain(manager: ScriptedManager) -> None:
    """Waiting middleware does not keep the worker from stopping."""
    waiting = asyncio.Event()

    async def wait_forever(_task: Word, _context: TaskContext, call_next: CallNext) -> Outcome:
        waiting.set()
        await asyncio.Event().wait()
        return await call_next()

    subject = WorkerUnderTest(manager, wait_forever, drain_timeout=timedelta(milliseconds=10))
    running = asyncio.create_task(subject.worker.run())
    await waiting.wait()
    subject.worker.stop()
    await running
