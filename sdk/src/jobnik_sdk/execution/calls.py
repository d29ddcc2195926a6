"""Interruptible calls of plain functions, in a thread or a process, and the outcomes of what handlers return."""

import inspect
import os
import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from typing import Any, Final

from pydantic import BaseModel

from jobnik_sdk.errors import Cancelled, ConfigurationError
from jobnik_sdk.execution import outcomes
from jobnik_sdk.execution.context import TaskContext
from jobnik_sdk.execution.outcomes import Outcome

_NO_VALUE: Final = object()


class InterruptWindow(ABC):
    """The time in which a handler can be interrupted.

    While the window is open, `Cancelled` can be raised once, at any line, in the thread that opened it.
    """

    @abstractmethod
    def open(self) -> None:
        """Open the window.

        Raises:
            Cancelled: the attempt is already cancelled.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the window: once this returns, `Cancelled` is no longer raised."""


def call_function(
    function: Callable[..., Any],
    arguments: Sequence[Any],
    result: type[BaseModel] | None,
    window: InterruptWindow,
) -> Outcome:
    """Call the function of a handler, and return the outcome of the attempt; never raises.

    Args:
        function: The function.
        arguments: The data and the context of the task and, if the handler has a lifespan, its value.
        result: The model of the result.
        window: The time in which the function can be interrupted.
    """
    context: TaskContext[Any] = arguments[1]
    value, error, process = _NO_VALUE, None, os.getpid()
    try:
        try:
            window.open()
            value = function(*arguments)
        except BaseException as raised:  # noqa: BLE001 a handler may raise anything
            error = raised
        window.close()
    except Cancelled as late:  # raised after the function's last line, so the function's own outcome counts
        window.close()
        if value is _NO_VALUE and error is None:
            error = late
    end_fork(process)
    if error is None:
        return outcome_of(value, result, context)
    try:
        return outcomes.for_exception(error, context)
    finally:
        error = None  # breaks a reference cycle that would keep the function's frames until a garbage collection


def outcome_of(value: object, result: type[BaseModel] | None, context: TaskContext[Any]) -> Outcome:
    """Return the outcome of a handler that returned `value`; never raises."""
    try:
        if value is not None and not isinstance(value, BaseModel):
            _check_finished(value)
        return outcomes.for_result(value, result)
    except BaseException as error:  # noqa: BLE001 models are the application's code, and may raise anything
        return outcomes.for_exception(error, context)


def end_fork(process: int) -> None:
    """End this process unless it is the given one: then a handler forked it, and the fork has left the handler."""
    if os.getpid() != process:
        os._exit(0)


def _check_finished(value: Any) -> None:  # noqa: ANN401 whatever a handler returned
    """Refuse a return value that stands for work that has not been done yet.

    Raises:
        ConfigurationError: `value` is a coroutine, another awaitable, a generator or a future.
    """
    kind = type(value).__name__
    if inspect.isgenerator(value) or inspect.iscoroutine(value):
        value.close()  # otherwise Python would warn that it was never awaited
    elif not inspect.isasyncgen(value) and not isinstance(value, Awaitable | Future):
        return
    raise ConfigurationError(
        f"The handler returned an object of type {kind}, so it has not done its work yet. A plain function must do the "
        "work before it returns; a coroutine function must await everything that it starts."
    )


def format_stack(thread: int) -> str:
    """Return the current stack of the thread with this Python identifier; empty if it has ended."""
    frames = sys._current_frames()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] documented despite its name
    return "".join(traceback.format_stack(frames[thread])) if thread in frames else ""
