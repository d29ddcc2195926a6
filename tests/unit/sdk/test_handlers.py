"""Definitions of handlers, and the outcomes of their attempts."""

import threading
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID

import pytest
from jobnik_sdk import (
    Cancelled,
    ConfigurationError,
    DoNotRetry,
    Empty,
    Handler,
    HandlerStyle,
    JobInfo,
    Priority,
    RetryLater,
    Snooze,
    StageInfo,
    StageType,
    TaskContext,
)
from jobnik_sdk.execution import outcomes
from pydantic import BaseModel

_MINUTE = timedelta(minutes=1)


class Picture(BaseModel):
    """The data of a task."""

    source: str


class Size(BaseModel):
    """The result of a task."""

    width: int


pictures = StageType("pictures", task=Picture, result=Size)


async def measure(_task: Picture, _context: TaskContext) -> Size:
    """Measure."""
    return Size(width=1)


def measure_plainly(_task: Picture, _context: TaskContext) -> Size:
    """Measure."""
    return Size(width=1)


def _local() -> Callable[[Picture, TaskContext], Size]:
    def local(task: Picture, context: TaskContext) -> Size:
        return measure_plainly(task, context)

    return local


def _with_quality(_task: Picture, _context: TaskContext, *, quality: int) -> Size:
    return Size(width=quality)


def _context(**fields: Any) -> TaskContext:  # noqa: ANN401 passed on
    common: dict[str, Any] = {
        "job": JobInfo(UUID(int=1), "gallery", Priority.HIGH, {}, {}),
        "stage": StageInfo(UUID(int=2), "pictures", 1, Empty(), Empty()),
        "task_id": UUID(int=3),
        "attempt": 1,
        "max_attempts": 3,
        "metadata": Empty(),
        "traceparent": "",
    }
    return TaskContext(**common | fields)


def test_defaults() -> None:
    """By default a handler is a coroutine function, for one task at a time, without limits."""
    handler = Handler(pictures, measure)
    assert (handler.style, handler.concurrency, handler.timeout) == (HandlerStyle.ASYNC, 1, None)
    assert (handler.recycle_after, handler.memory_limit) == (None, None)


_INVALID: list[tuple[Any, dict[str, Any], str]] = [
    (measure_plainly, {}, "async def"),
    (measure, {"style": HandlerStyle.THREAD}, "a plain function"),
    (measure, {"style": HandlerStyle.PROCESS}, "a plain function"),
    (_local(), {"style": HandlerStyle.PROCESS}, "at the top level of a module"),
    (lambda: None, {"style": HandlerStyle.THREAD}, "does not: too many positional arguments"),
    (_with_quality, {"style": HandlerStyle.THREAD}, "missing a required (keyword-only )?argument: 'quality'.*partial"),
    (measure, {"concurrency": 0}, "concurrency of a handler must be 1 or more"),
    (measure, {"timeout": timedelta()}, "timeout of a handler must be longer than 0"),
    (measure, {"recycle_after": 5}, r"use HandlerStyle\.PROCESS"),
    (measure_plainly, {"style": HandlerStyle.THREAD, "memory_limit": 5}, r"use HandlerStyle\.PROCESS"),
    (
        measure_plainly,
        {"style": HandlerStyle.PROCESS, "recycle_after": 0},
        "recycle_after of a handler must be 1 or more",
    ),
    (
        measure_plainly,
        {"style": HandlerStyle.PROCESS, "memory_limit": 0},
        "memory_limit of a handler must be 1 or more",
    ),
]


@pytest.mark.parametrize(("function", "options", "message"), _INVALID)
def test_invalid_handlers_are_rejected(function: Any, options: dict[str, Any], message: str) -> None:  # noqa: ANN401 wrong on purpose
    """A definition that cannot work is rejected when the handler is created."""
    with pytest.raises(ConfigurationError, match=message):
        Handler(pictures, function, **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stage_type": "pictures"}, "stage_type of a handler must be a StageType, not 'pictures'"),
        ({"style": "async"}, "style of a handler must be a HandlerStyle, not 'async'"),
        ({"timeout": 5}, r"timeout of a handler must be a timedelta, such as timedelta\(seconds=5\), not 5"),
    ],
)
def test_arguments_of_wrong_types_are_named(arguments: dict[str, Any], message: str) -> None:
    """A dependency container, which no type checker analyses, gets an error that names the argument."""
    untyped: Any = Handler
    with pytest.raises(TypeError, match=message):
        untyped(**{"stage_type": pictures, "function": measure} | arguments)


def test_further_arguments_can_be_bound() -> None:
    """A `functools.partial` is accepted as the function of a handler."""
    handler = Handler(pictures, partial(_with_quality, quality=3), style=HandlerStyle.THREAD)
    assert handler.function(Picture(source=""), _context()) == Size(width=3)


def test_models_of_process_handlers_must_be_importable() -> None:
    """A process also imports the models of its handler."""

    class Hidden(BaseModel):
        pass

    hidden: Any = StageType("hidden", task=Hidden, result=Size)
    with pytest.raises(ConfigurationError, match="at the top level of a module"):
        Handler(hidden, measure_plainly, style=HandlerStyle.PROCESS)


class _Measuring:
    def __init__(self, resource: object) -> None:
        self._resource = resource

    def __call__(self, _task: Picture, _context: TaskContext) -> Size:
        return Size(width=1)

    def measure(self, _task: Picture, _context: TaskContext) -> Size:
        return Size(width=1)


def _measure_with(_task: Picture, _context: TaskContext, _resource: object) -> Size:
    return Size(width=1)


_LOCK: Final[Any] = threading.Lock()  # like a connection, it cannot be pickled


@pytest.mark.parametrize(
    "options",
    [
        {"function": partial(_with_quality, quality=_LOCK)},
        {"function": _Measuring(_LOCK)},
        {"function": _Measuring(_LOCK).measure},
        {"function": _measure_with, "lifespan": partial(nullcontext, _LOCK)},
    ],
)
def test_values_bound_to_process_handlers_must_be_pickled(options: dict[str, Any]) -> None:
    """The function may well be at the top level of a module, so the error does not advise to move it."""
    message = "cannot pickle '_thread.lock' object. Bind only values that can be pickled, and open resources in the"
    with pytest.raises(ConfigurationError, match=message):
        Handler(pictures, **options, style=HandlerStyle.PROCESS)


@pytest.mark.parametrize(
    ("handler_timeout", "task_timeout", "expected"),
    [(None, None, None), (_MINUTE, None, _MINUTE), (None, _MINUTE, _MINUTE), (_MINUTE, 2 * _MINUTE, _MINUTE)],
)
def test_shorter_timeout_applies(
    handler_timeout: timedelta | None, task_timeout: timedelta | None, expected: timedelta | None
) -> None:
    """The shorter of the timeouts of handler and task applies."""
    assert Handler(pictures, measure, timeout=handler_timeout).attempt_timeout(task_timeout) == expected


def test_returned_value_completes_the_task() -> None:
    """A result is stored as JSON."""
    assert outcomes.for_result(Size(width=1), Size) == outcomes.Completed(b'{"width":1}')
    assert outcomes.for_result(None, None) == outcomes.Completed(None)
    wrong = outcomes.for_result(None, Size)
    assert isinstance(wrong, outcomes.Failed)
    assert wrong.message.startswith("result: ")


@pytest.mark.parametrize("value", [Size(width=1), {}, 0, "", False, iter(())], ids=lambda value: type(value).__name__)
def test_a_value_without_a_result_model_fails_the_attempt(value: object) -> None:
    """The value cannot be stored, so the attempt fails instead of losing it silently."""
    failed = outcomes.for_result(value, None)
    assert isinstance(failed, outcomes.Failed)
    assert failed.error_type == "InvalidPayloadError"
    assert failed.message == (
        f"result: the handler returned a value of type {type(value).__name__}, but its stage type has no result model: "
        "declare one with StageType(…, result=…), or return None."
    )


def test_delays_are_never_negative() -> None:
    """A negative delay is replaced by 0."""
    assert outcomes.for_exception(Snooze(-_MINUTE), _context()) == outcomes.Snoozed(timedelta())
    later = outcomes.for_exception(RetryLater(-_MINUTE), _context())
    assert isinstance(later, outcomes.Failed)
    assert later.delay == timedelta()


def test_delays_are_at_most_a_year() -> None:
    """The manager would reject a report with a longer delay."""
    assert outcomes.for_exception(Snooze(timedelta(days=4000)), _context()) == outcomes.Snoozed(timedelta(days=365))


@pytest.mark.parametrize("kind", [RetryLater, Snooze])
def test_delay_without_a_unit_is_rejected(kind: Callable[[Any], Exception]) -> None:
    """The attempt fails with this error."""
    with pytest.raises(TypeError, match=rf"The delay of {kind.__name__} must be a timedelta, .* not 5"):
        kind(5)


def test_incomplete_exception_fails_the_attempt() -> None:
    """A subclass that does not call its base's constructor fails the attempt like any other exception."""

    class Incomplete(RetryLater):
        def __init__(self) -> None:
            pass

    outcome = outcomes.for_exception(Incomplete(), _context())
    assert isinstance(outcome, outcomes.Failed)
    assert outcome.error_type == "AttributeError"


def test_texts_are_within_the_limits_of_the_protocol() -> None:
    """A message is cut, and characters that the database cannot store are replaced."""
    outcome = outcomes.for_exception(ValueError("a\0b\ud800" + "c" * 20_000), _context())
    assert isinstance(outcome, outcomes.Failed)
    assert outcome.message.startswith("a\N{REPLACEMENT CHARACTER}b?c")
    assert (len(outcome.message), len(outcome.stack) <= 50_000) == (10_000, True)
    outcome.stack.encode()


@pytest.mark.parametrize("error", [ValueError(), Cancelled(), Snooze(_MINUTE), DoNotRetry()])
def test_exception_after_a_cancellation_releases_the_task(error: BaseException) -> None:
    """The exception is attributed to the cancellation."""
    context = _context()
    context.cancellation.request("drain")
    assert outcomes.for_exception(error, context) == outcomes.Released("drain")


def test_cancelled_without_a_request_fails_the_attempt() -> None:
    """A handler that raises `Cancelled` itself fails its attempt."""
    outcome = outcomes.for_exception(Cancelled(), _context())
    assert isinstance(outcome, outcomes.Failed)
    assert outcome.error_type == "Cancelled"
