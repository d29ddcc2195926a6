"""Calling a plain function that may be interrupted, in a thread or in a process."""

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

_NOTHING: Final = object()


class Gate(ABC):
    """While it is open, `Cancelled` may be raised in the thread that opened it, once, at any line."""

    @abstractmethod
    def open(self) -> None:
        """Begin; raises `Cancelled` if the attempt has been asked to end already."""

    @abstractmethod
    def shut(self) -> None:
        """End: once this has returned, nothing is raised any more."""


def call(
    function: PlainFunction[Any, Any, Any, Any, Any],
    result: type[BaseModel] | None,
    data: BaseModel,
    context: TaskContext[Any],
    gate: Gate,
) -> Outcome:
    """Call a handler's function, and return how the attempt ended; it never raises."""
    value, error = _NOTHING, None
    try:
        try:
            gate.open()
            value = function(data, context)
        except BaseException as raised:  # noqa: BLE001 a handler may raise anything
            error = raised
        gate.shut()
    except Cancelled as late:  # it came after the function's last line: what the function did counts
        gate.shut()
        if value is _NOTHING and error is None:
            error = late
    if error is None:
        return outcomes.of_value(value, result)
    try:
        return outcomes.of_error(error, context)
    finally:
        error = None  # it holds this frame, and all that the function's frames hold, until a garbage collection


def stack_of(thread: int) -> str:
    """Return where a thread is that Python calls by this number; empty if it has ended."""
    frames = sys._current_frames()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] documented, under this name
    return "".join(traceback.format_stack(frames[thread])) if thread in frames else ""
