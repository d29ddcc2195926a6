"""Calls of plain functions that can be interrupted, in a thread or in a process."""

import sys
import traceback
from abc import ABC, abstractmethod
from typing import Any, Final

from pydantic import BaseModel

from jobnik_sdk.errors import Cancelled
from jobnik_sdk.execution import outcomes
from jobnik_sdk.execution.context import TaskContext
from jobnik_sdk.execution.handler import PlainFunction
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
    function: PlainFunction[Any, Any, Any, Any, Any],
    result: type[BaseModel] | None,
    data: BaseModel,
    context: TaskContext[Any],
    window: InterruptWindow,
) -> Outcome:
    """Call the function of a handler, and return the outcome of the attempt; never raises."""
    value, error = _NO_VALUE, None
    try:
        try:
            window.open()
            value = function(data, context)
        except BaseException as raised:  # noqa: BLE001 a handler may raise anything
            error = raised
        window.close()
    except Cancelled as late:  # raised after the function's last line, so the function's own outcome counts
        window.close()
        if value is _NO_VALUE and error is None:
            error = late
    if error is None:
        return outcomes.for_result(value, result)
    try:
        return outcomes.for_exception(error, context)
    finally:
        error = None  # breaks a reference cycle that would keep the function's frames until a garbage collection


def format_stack(thread: int) -> str:
    """Return the current stack of the thread with this Python identifier; empty if it has ended."""
    frames = sys._current_frames()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] documented despite its name
    return "".join(traceback.format_stack(frames[thread])) if thread in frames else ""
