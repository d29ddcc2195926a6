"""Outcomes of attempts, and their derivation from a handler's result or exception. Outcomes can be pickled."""

import traceback
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Self, TypeAlias

from pydantic import BaseModel

from jobnik_sdk import errors
from jobnik_sdk.execution.context import TaskContext
from jobnik_sdk.model.arguments import MAX_DURATION, check_duration
from jobnik_sdk.model.exceptions import InvalidPayloadError
from jobnik_sdk.model.payloads import encode_payload, fit_text

TIMEOUT: Final = "timeout"
"""The reason for cancelling an attempt that exceeds its time limit."""

# The limits of the protocol.
_LONGEST_TYPE: Final = 200
_LONGEST_MESSAGE: Final = 10_000
_LONGEST_STACK: Final = 50_000


@dataclass(frozen=True, slots=True)
class Completed:
    """The handler returned.

    Attributes:
        result: The result as JSON; None if the stage type has no result model.
    """

    result: bytes | None


@dataclass(frozen=True, slots=True)
class Failed:
    """The handler raised an exception, exceeded its time limit, or its process died.

    Attributes:
        error_type: The name of the exception's class; up to 200 characters.
        message: The exception's message; up to 10,000 characters.
        stack: The stack trace; up to 50,000 characters.
        retryable: False if the task must fail permanently, even if attempts are left.
        delay: How long the next attempt has to wait; None: the task's retry policy decides.
    """

    error_type: str
    message: str
    stack: str
    retryable: bool = True
    delay: timedelta | None = None

    @classmethod
    def from_exception(cls, error: BaseException, *, retryable: bool = True, delay: timedelta | None = None) -> Self:
        """Return the outcome for an exception, with texts cut to the limits above.

        It holds texts rather than the exception, because not every exception can be pickled.
        """
        return cls(*_describe(error), _stack(error), retryable, delay)


@dataclass(frozen=True, slots=True)
class Snoozed:
    """The handler postponed the task: it is available again after `delay`, and the attempt does not count."""

    delay: timedelta


@dataclass(frozen=True, slots=True)
class Released:
    """The attempt was cancelled, and the task was released.

    Attributes:
        reason: Why the attempt was cancelled: "job aborted", "lease lost" or "drain", for example.
    """

    reason: str


_COMPLETED: Final = Completed(None)

Outcome: TypeAlias = Completed | Failed | Snoozed | Released
"""The outcome of an attempt: `call_next` returns it to a middleware, and the middleware returns it."""


def for_result(value: object, result: type[BaseModel] | None) -> Outcome:
    """Return the outcome if the handler returned `value`: failed if it does not fit the result model.

    Without a result model, a value would be lost, so returning one fails the attempt as well.
    """
    if result is None and value is not None:
        reason = (
            f"the handler returned a value of type {type(value).__name__}, but its stage type has no result model: "
            "declare one with StageType(…, result=…), or return None."
        )
        return Failed.from_exception(InvalidPayloadError("result", reason))
    if result is None:
        return _COMPLETED
    try:
        return Completed(encode_payload(value, result, "result"))
    except Exception as error:  # noqa: BLE001 validators are the application's code
        return Failed.from_exception(error)


def for_exception(error: BaseException, context: TaskContext[Any]) -> Outcome:
    """Return the outcome if the handler raised `error`.

    An exception after a cancellation is attributed to the cancellation. After a timeout, however, the handler may still
    decide the outcome with `Snooze`, `RetryLater` or `DoNotRetry`.
    """
    try:
        return _for_exception(error, context)
    except BaseException as internal:  # noqa: BLE001 the exception's attributes are the application's code
        return Failed.from_exception(internal)


def _for_exception(error: BaseException, context: TaskContext[Any]) -> Outcome:
    reason = context.cancellation.reason
    if reason is not None and reason != TIMEOUT:
        return Released(reason)
    match error:
        case errors.Snooze():
            return Snoozed(_clamp(error.delay))
        case errors.RetryLater():
            return Failed.from_exception(error, delay=_clamp(error.delay))
        case errors.DoNotRetry():
            return Failed.from_exception(error, retryable=False)
        case _ if reason == TIMEOUT:
            return for_cancellation(context, Failed.from_exception(error).stack)
        case _:
            return Failed.from_exception(error)


def validated(outcome: object) -> Outcome:
    """Return the outcome that a middleware returned, with texts and delays within the protocol's limits.

    Raises:
        TypeError: it is not an outcome. Reports are sent in batches, so an invalid one would block all others.
    """
    match outcome:
        case Completed(bytes() | None) | Released():
            return outcome
        case Failed():
            texts = fit_text(outcome.error_type, _LONGEST_TYPE), fit_text(outcome.message, _LONGEST_MESSAGE)
            delay = None if outcome.delay is None else _clamp(outcome.delay)
            return Failed(*texts, fit_text(outcome.stack, _LONGEST_STACK), outcome.retryable, delay)
        case Snoozed():
            return Snoozed(_clamp(outcome.delay))
        case _:
            raise TypeError(f"A middleware must return an Outcome, such as the one from call_next(), not {outcome!r}")


def for_cancellation(context: TaskContext[Any], stack: str) -> Outcome:
    """Return the outcome of a cancelled attempt; `stack` is the stack of the handler at that moment."""
    reason = context.cancellation.reason
    if reason == TIMEOUT and context.timeout is not None:
        seconds = context.timeout.total_seconds()
        return Failed("TimeoutError", f"The attempt took longer than {seconds:g} s.", fit_text(stack, _LONGEST_STACK))
    return Released(reason or "cancelled")


def _describe(error: BaseException) -> tuple[str, str]:
    """Return the type and the message of an exception; `RetryLater` and `DoNotRetry` take those of their cause."""
    message = _message(error)
    # Not `isinstance`, which reads `__class__`, and the exception may define that.
    if issubclass(type(error), (errors.RetryLater, errors.DoNotRetry)) and error.__cause__ is not None:
        error = error.__cause__
        message = message or _message(error)
    return fit_text(_name(error), _LONGEST_TYPE), message


# An exception's class is the application's code, and each of its methods may raise anything.


def _name(error: BaseException) -> str:
    try:
        return str(type(error).__name__)
    except BaseException:  # noqa: BLE001 a metaclass may define the name
        return "Exception"


def _message(error: BaseException) -> str:
    try:
        return fit_text(str(error), _LONGEST_MESSAGE)
    except BaseException:  # noqa: BLE001 `__str__` may raise SystemExit
        return "the exception has no readable message"


def _stack(error: BaseException) -> str:
    try:
        stack = "".join(traceback.format_exception(error))
    except BaseException:  # noqa: BLE001 `__module__` or `__cause__` may be a property
        stack = "the exception has no readable stack trace"
    # The end of a stack is more useful than its beginning.
    return fit_text(stack[-_LONGEST_STACK:], _LONGEST_STACK)


def _clamp(delay: timedelta) -> timedelta:
    check_duration("The delay", delay)
    return min(max(delay, timedelta()), MAX_DURATION)
