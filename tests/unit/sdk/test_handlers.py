"""What a handler may be, and what it says of how its attempt ends."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from jobnik_sdk import Empty, Handler, HandlerStyle, JobInfo, Priority, StageInfo, StageType, TaskContext
from jobnik_sdk.errors import Cancelled, ConfigurationError, DoNotRetry, RetryLater, Snooze
from jobnik_sdk.handlers import endings
from pydantic import BaseModel

_MINUTE = timedelta(minutes=1)


class Picture(BaseModel):
    """A task's data."""

    source: str


class Size(BaseModel):
    """A task's result."""

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


def test_defaults_ask_for_nothing() -> None:
    """A handler is a coroutine function, for one task at a time, without limits, unless it says otherwise."""
    handler = Handler(pictures, measure)
    assert (handler.style, handler.concurrency, handler.timeout) == (HandlerStyle.ASYNC, 1, None)
    assert (handler.recycle_after, handler.memory_limit) == (None, None)


_IMPOSSIBLE: list[tuple[Any, dict[str, Any], str]] = [
    (measure_plainly, {}, "async def"),
    (measure, {"style": HandlerStyle.THREAD}, "a plain function"),
    (measure, {"style": HandlerStyle.PROCESS}, "a plain function"),
    (_local(), {"style": HandlerStyle.PROCESS}, "at the top of a module"),
    (lambda: None, {"style": HandlerStyle.THREAD}, "cannot be called so: too many positional arguments"),
    (_with_quality, {"style": HandlerStyle.THREAD}, "missing a required (keyword-only )?argument: 'quality'.*partial"),
    (measure, {"concurrency": 0}, "concurrency is 1 or more"),
    (measure, {"timeout": timedelta()}, "timeout is longer than nothing"),
    (measure, {"recycle_after": 5}, r"choose HandlerStyle\.PROCESS"),
    (measure_plainly, {"style": HandlerStyle.THREAD, "memory_limit": 5}, r"choose HandlerStyle\.PROCESS"),
    (measure_plainly, {"style": HandlerStyle.PROCESS, "recycle_after": 0}, "recycle_after is 1 or more"),
    (measure_plainly, {"style": HandlerStyle.PROCESS, "memory_limit": 0}, "memory_limit is 1 or more"),
]


@pytest.mark.parametrize(("function", "options", "complaint"), _IMPOSSIBLE)
def test_impossible_handlers_are_refused(function: Any, options: dict[str, Any], complaint: str) -> None:  # noqa: ANN401 wrong on purpose
    """What can never work is said when the handler is made."""
    with pytest.raises(ConfigurationError, match=complaint):
        Handler(pictures, function, **options)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"stage_type": "pictures"}, "stage_type is a StageType, not 'pictures'"),
        ({"style": "async"}, "style is a HandlerStyle, not 'async'"),
        ({"timeout": 5}, r"timeout is a timedelta, such as timedelta\(seconds=5\), not 5"),
    ],
)
def test_arguments_of_other_types_are_named(arguments: dict[str, Any], complaint: str) -> None:
    """A container that no type checker sees through gets its answer when it makes the handler."""
    untyped: Any = Handler
    with pytest.raises(TypeError, match=complaint):
        untyped(**{"stage_type": pictures, "function": measure} | arguments)


def test_what_a_handler_needs_besides_may_be_bound() -> None:
    """A partial is a function as good as any."""
    handler = Handler(pictures, partial(_with_quality, quality=3), style=HandlerStyle.THREAD)
    assert handler.function(Picture(source=""), _context()) == Size(width=3)


def test_models_of_processes_are_importable() -> None:
    """A process has to find the models of its handler as well."""

    class Hidden(BaseModel):
        pass

    hidden: Any = StageType("hidden", task=Hidden, result=Size)
    with pytest.raises(ConfigurationError, match="at the top of a module"):
        Handler(hidden, measure_plainly, style=HandlerStyle.PROCESS)


@pytest.mark.parametrize(
    ("own", "tasks", "limit"),
    [(None, None, None), (_MINUTE, None, _MINUTE), (None, _MINUTE, _MINUTE), (_MINUTE, 2 * _MINUTE, _MINUTE)],
)
def test_shorter_limit_counts(own: timedelta | None, tasks: timedelta | None, limit: timedelta | None) -> None:
    """Of the handler's timeout and the task's the shorter one counts."""
    assert Handler(pictures, measure, timeout=own).limit(tasks) == limit


def test_values_complete() -> None:
    """A result is a JSON document; what a handler returns that has none is not looked at."""
    assert endings.of_value(Size(width=1), Size) == endings.Completed(b'{"width":1}')
    assert endings.of_value(Size(width=1), None) == endings.Completed(None)
    wrong = endings.of_value(None, Size)
    assert isinstance(wrong, endings.Failed)
    assert wrong.message.startswith("result: ")


def test_delays_are_never_negative() -> None:
    """A moment that has passed already means at once."""
    assert endings.of_error(Snooze(-_MINUTE), _context()) == endings.Snoozed(timedelta())
    later = endings.of_error(RetryLater(-_MINUTE), _context())
    assert isinstance(later, endings.Failed)
    assert later.delay == timedelta()


def test_delays_are_a_year_at_most() -> None:
    """A manager would refuse the report of a longer one."""
    assert endings.of_error(Snooze(timedelta(days=4000)), _context()) == endings.Snoozed(timedelta(days=365))


@pytest.mark.parametrize("kind", [RetryLater, Snooze])
def test_a_delay_without_a_unit_is_refused_where_it_is_written(kind: Callable[[Any], Exception]) -> None:
    """So the attempt fails with this as its error, instead of never ending."""
    with pytest.raises(TypeError, match=rf"The delay of {kind.__name__} is a timedelta, .* not 5"):
        kind(5)


def test_an_error_that_is_not_whole_is_an_error() -> None:
    """A subclass that has forgotten its base's constructor fails its attempt like anything else."""

    class Hasty(RetryLater):
        def __init__(self) -> None:
            pass

    ending = endings.of_error(Hasty(), _context())
    assert isinstance(ending, endings.Failed)
    assert ending.error_type == "AttributeError"


def test_words_fit_the_protocol() -> None:
    """Whatever an exception says, it can be stored."""
    ending = endings.of_error(ValueError("a\0b\ud800" + "c" * 20_000), _context())
    assert isinstance(ending, endings.Failed)
    assert ending.message.startswith("a\N{REPLACEMENT CHARACTER}b?c")
    assert (len(ending.message), len(ending.stack) <= 50_000) == (10_000, True)
    ending.stack.encode()


@pytest.mark.parametrize("error", [ValueError(), Cancelled(), Snooze(_MINUTE), DoNotRetry()])
def test_errors_after_a_cancellation_are_its_consequence(error: BaseException) -> None:
    """Whatever is raised then, the attempt was cancelled."""
    context = _context()
    context.cancellation.request("drain")
    assert endings.of_error(error, context) == endings.Cancelled("drain")


def test_cancelled_without_being_asked_to_is_an_error() -> None:
    """A handler that raises Cancelled itself has failed."""
    ending = endings.of_error(Cancelled(), _context())
    assert isinstance(ending, endings.Failed)
    assert ending.error_type == "Cancelled"
