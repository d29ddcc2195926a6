"""Runs handlers that are coroutine functions, on the event loop."""

import asyncio
import os
import traceback
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from datetime import timedelta
from functools import partial
from types import FrameType
from typing import Any, Final

from pydantic import BaseModel
from typing_extensions import override

from jobnik_sdk.execution import outcomes
from jobnik_sdk.execution.calls import end_fork, outcome_of
from jobnik_sdk.execution.handler import AnyHandler
from jobnik_sdk.execution.lifespans import AsyncLifespan, Lifespan
from jobnik_sdk.execution.runner import Runner, RunningAttempt


class CoroutineRunner(Runner):
    """Runs each attempt in its own asyncio task. An abandoned attempt may outlive `run`."""

    def __init__(self, handler: AnyHandler, cancellation_timeout: timedelta) -> None:
        super().__init__(handler, cancellation_timeout)
        self._function: Callable[..., Awaitable[Any]] = handler.function
        self._process = os.getpid()  # read once, because it takes a system call
        self._create_task: Callable[..., asyncio.Task[Any]] = asyncio.create_task
        self._tasks: dict[RunningAttempt, asyncio.Task[None]] = {}

    @override
    def _new_lifespan(self) -> Lifespan:
        return AsyncLifespan(self._handler)

    @override
    def _start(self, attempt: RunningAttempt, data: BaseModel) -> None:
        if not self._tasks:
            self._create_task = _install_task_factory(attempt.loop)
        self._tasks[attempt] = self._create_task(self._call_handler(attempt, data), context=attempt.variables)

    async def _call_handler(self, attempt: RunningAttempt, data: BaseModel) -> None:
        _in_handler.set(True)
        try:
            value = await self._function(data, attempt.context, *self._resource)
        except _TaskExit as error:
            outcome = outcomes.for_exception(error.__cause__ or error, attempt.context)
        except GeneratorExit as error:
            if not attempt.loop.is_running():
                raise  # the loop is closed, and Python destroys this coroutine
            outcome = outcomes.for_exception(error, attempt.context)
        except BaseException as error:  # noqa: BLE001 a handler may raise anything
            outcome = outcomes.for_exception(error, attempt.context)
        else:
            outcome = outcome_of(value, self._handler.stage_type.result, attempt.context)
        end_fork(self._process)
        del self._tasks[attempt]
        self._finish(attempt, outcome)

    @override
    def _interrupt(self, attempt: RunningAttempt) -> None:
        self._tasks[attempt].cancel(attempt.context.cancellation.reason)

    @override
    def _stack(self, attempt: RunningAttempt) -> str:
        frames: list[tuple[FrameType, int]] = []
        # A task only has its outermost frame. The inner ones follow from what each coroutine awaits.
        coroutine: Any = self._tasks[attempt].get_coro()
        while coroutine is not None:
            frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
            if frame is not None:
                frames.append((frame, frame.f_lineno))
            coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
        return "".join(traceback.StackSummary.extract(iter(frames)).format())


_in_handler: Final[ContextVar[bool]] = ContextVar("jobnik_in_handler", default=False)
"""Whether the current task belongs to a handler: it runs the handler, or the handler created it."""


class _TaskExit(BaseException):
    """A task that a handler created raised SystemExit or KeyboardInterrupt; `__cause__` is this exception.

    Without this class, asyncio would stop the event loop, and with it all other handlers.
    """


async def _contain_exit(coroutine: Awaitable[Any]) -> Any:  # noqa: ANN401 the result of any coroutine
    try:
        return await coroutine
    except (SystemExit, KeyboardInterrupt) as error:
        raise _TaskExit(f"a task of the handler raised {type(error).__name__}") from error


class _TaskFactory:
    """Creates the tasks of an event loop. An exit in a task that a handler creates does not stop the loop."""

    def __init__(self, previous: Callable[..., Any] | None) -> None:
        self._previous = previous

    @property
    def has_previous(self) -> bool:
        """Whether the tasks themselves are created by a factory of the application."""
        return self._previous is not None

    def __call__(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:  # noqa: ANN401 as asyncio
        if _in_handler.get():
            inner, coroutine = coroutine, _contain_exit(coroutine)
            coroutine.__name__ = getattr(inner, "__name__", coroutine.__name__)
            coroutine.__qualname__ = getattr(inner, "__qualname__", coroutine.__qualname__)
        if self._previous is None:
            return asyncio.Task(coroutine, loop=loop, **options)
        return self._previous(loop, coroutine, **options)


def _install_task_factory(loop: asyncio.AbstractEventLoop) -> Callable[..., asyncio.Task[Any]]:
    """Let a loop create its tasks with a `_TaskFactory`; return a function that creates the tasks of attempts."""
    factory: Any = loop.get_task_factory()
    if not isinstance(factory, _TaskFactory):
        factory = _TaskFactory(factory)
        loop.set_task_factory(factory)
    return loop.create_task if factory.has_previous else partial(asyncio.Task, loop=loop)  # the same, but faster
