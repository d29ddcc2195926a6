"""How an attempt ended: values that can travel between processes, and how they follow from what a handler did."""

import traceback
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Self, TypeAlias

from pydantic import BaseModel

from jobnik_sdk import errors
from jobnik_sdk.execution.context import TaskContext
from jobnik_sdk.model.arguments import check_duration
from jobnik_sdk.model.definitions import MAX_DURATION
from jobnik_sdk.model.payloads import fit_text, to_document

TIMEOUT: Final = "timeout"
"""Why an attempt is cancelled that takes too long."""

# As long as the protocol allows.
_LONGEST_TYPE: Final = 200
_LONGEST_MESSAGE: Final = 10_000
_LONGEST_STACK: Final = 50_000


@dataclass(frozen=True, slots=True)
class Completed:
    """The handler returned; `result` is a JSON document that fits the stage type's model, None where it has none."""

    result: bytes | None


@dataclass(frozen=True, slots=True)
class Failed:
    """The handler raised, or could not go on.

    The error has a class of up to 200 characters, a message of 10,000 and a stack of 50,000. Unless it is `retryable`
    the task fails for good. `delay` is how long its next attempt has to wait; None: as its retry policy says.
    """

    error_type: str
    message: str
    stack: str
    retryable: bool = True
    delay: timedelta | None = None

    @classmethod
    def because(cls, error: BaseException, *, retryable: bool = True, delay: timedelta | None = None) -> Self:
        """Return what an exception says, in words that fit: not every exception survives pickling."""
        # The end of a stack tells more than its beginning.
        stack = "".join(traceback.format_exception(error))[-_LONGEST_STACK:]
        return cls(*_described(error), fit_text(stack, _LONGEST_STACK), retryable, delay)


@dataclass(frozen=True, slots=True)
class Snoozed:
    """The handler put the task off: it comes back after `delay`, and this attempt does not count."""

    delay: timedelta


@dataclass(frozen=True, slots=True)
class Released:
    """The attempt was asked to end, for this reason, and did; not to be confused with the exception of this name."""

    reason: str


Outcome: TypeAlias = Completed | Failed | Snoozed | Released
"""How an attempt ended: what a middleware's `call` returns, and what a middleware returns itself."""


def of_value(value: object, result: type[BaseModel] | None) -> Outcome:
    """Return how an attempt ended whose handler returned `value`: failed, if that does not fit the model."""
    if result is None:
        return Completed(None)
    try:
        return Completed(to_document(value, result, "result"))
    except Exception as error:  # noqa: BLE001 validators are the application's code
        return Failed.because(error)


def of_error(error: BaseException, context: TaskContext[Any]) -> Outcome:
    """Return how an attempt ended whose handler raised `error`.

    What is raised after the attempt was asked to end is raised because of that. Only what follows from a timeout may
    still be said by the handler.
    """
    try:
        return _of_error(error, context)
    except Exception as fault:  # noqa: BLE001 a subclass of the application's may lack what its base has
        return Failed.because(fault)


def _of_error(error: BaseException, context: TaskContext[Any]) -> Outcome:
    reason = context.cancellation.reason
    if reason is not None and reason != TIMEOUT:
        return Released(reason)
    match error:
        case errors.Snooze():
            return Snoozed(_bounded(error.delay))
        case errors.RetryLater():
            return Failed.because(error, delay=_bounded(error.delay))
        case errors.DoNotRetry():
            return Failed.because(error, retryable=False)
        case _ if reason == TIMEOUT:
            return interrupted(context, Failed.because(error).stack)
        case _:
            return Failed.because(error)


def checked(outcome: object) -> Outcome:
    """Return what a middleware says of an attempt, in words that can be reported.

    Raises:
        TypeError: it says nothing, or what is no outcome: one report that cannot be written would hold up all others.
    """
    match outcome:
        case Completed(bytes() | None) | Released():
            return outcome
        case Failed():
            words = fit_text(outcome.error_type, _LONGEST_TYPE), fit_text(outcome.message, _LONGEST_MESSAGE)
            delay = None if outcome.delay is None else _bounded(outcome.delay)
            return Failed(*words, fit_text(outcome.stack, _LONGEST_STACK), outcome.retryable, delay)
        case Snoozed():
            return Snoozed(_bounded(outcome.delay))
        case _:
            raise TypeError(f"A middleware returns how the attempt ended, as `call` does, and not {outcome!r}")


def interrupted(context: TaskContext[Any], stack: str) -> Outcome:
    """Return how an attempt ended that was asked to end; `stack` is where it was."""
    reason = context.cancellation.reason
    if reason == TIMEOUT and context.timeout is not None:
        seconds = context.timeout.total_seconds()
        return Failed("TimeoutError", f"The attempt took longer than {seconds:g} s.", fit_text(stack, _LONGEST_STACK))
    return Released(reason or "cancelled")


def _described(error: BaseException) -> tuple[str, str]:
    """Return an exception's type and message; what only says how to go on speaks for what it was raised from."""
    message = _message(error)
    if isinstance(error, errors.RetryLater | errors.DoNotRetry) and error.__cause__ is not None:
        error = error.__cause__
        message = message or _message(error)
    return fit_text(type(error).__name__, _LONGEST_TYPE), message


def _message(error: BaseException) -> str:
    try:
        return fit_text(str(error), _LONGEST_MESSAGE)
    except Exception:  # noqa: BLE001 also its words are the application's code
        return "its message cannot be read"


def _bounded(delay: timedelta) -> timedelta:
    check_duration("A delay", delay)
    return min(max(delay, timedelta()), MAX_DURATION)
