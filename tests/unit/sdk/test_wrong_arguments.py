"""Arguments of wrong types and out of range: each is refused at the call, in one line that names it."""

# pyright: reportUnknownLambdaType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# Calls with wrong arguments are untyped on purpose.

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import jobnik_sdk
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jobnik_sdk import (
    ConfigurationError,
    Handler,
    HandlerStyle,
    InvalidPayloadError,
    JobnikClient,
    JobnikError,
    JobType,
    NewStage,
    NewTask,
    Priority,
    RetryPolicy,
    StageType,
    TaskContext,
    TaskDefaults,
    TaskStatus,
    Worker,
    run,
    testing,
)
from jobnik_sdk.testing import FakeManager
from pydantic import BaseModel

from tests.unit.sdk.script import Word, words

SDK: Any = jobnik_sdk
"""The SDK without types, for calls that a type checker would reject."""
DAY = timedelta(days=1)
INSTANT = timedelta(microseconds=1)
YEAR = 365 * DAY
JOB = JobType("plain")
TESTING: Any = testing
MANAGER: Any = testing.FakeManager()
CLIENT = FakeManager().client()
_OWN = object()


async def read(_task: Word, _context: TaskContext) -> Word:
    """Handle a task."""
    return Word()


def read_blocking(_task: Word, _context: TaskContext) -> Word:
    """Handle a task in a process."""
    return Word()


class Parameter(NamedTuple):
    """A parameter, a call that sets it, and which values are valid."""

    name: str
    call: Callable[[Any], Any]
    is_valid: Callable[[Any], bool]


def between(least: float, most: float, kinds: type | tuple[type, ...] = int) -> Callable[[Any], bool]:
    """Accept numbers in a range."""
    return lambda value: isinstance(value, kinds) and not isinstance(value, bool) and least <= value <= most


def lasting(shortest: timedelta, longest: timedelta = YEAR) -> Callable[[Any], bool]:
    """Accept durations in a range."""
    return lambda value: isinstance(value, timedelta) and shortest <= value <= longest


def is_window(value: object) -> bool:
    """Accept whole seconds up to an hour."""
    return lasting(DAY / 86_400, DAY / 24)(value) and not value % timedelta(seconds=1)  # type: ignore[operator]


def text(shortest: int, longest: int) -> Callable[[Any], bool]:
    """Accept text that PostgreSQL can store."""
    return lambda value: (
        isinstance(value, str) and shortest <= len(value) <= longest and not {*value} & {"\0", "\ud800"}
    )


def kind(*kinds: type) -> Callable[[Any], bool]:
    """Accept instances."""
    return lambda value: isinstance(value, kinds)


def or_none(is_valid: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Accept None as well."""
    return lambda value: value is None or is_valid(value)


def is_model(value: object) -> bool:
    """Accept models."""
    return isinstance(value, type) and issubclass(value, BaseModel)


def is_empty_list(value: object) -> bool:
    """Accept iterables without items, which are the only ones among the values."""
    return value in ([], ())


COUNT = between(1, 2**31 - 1)
ATTEMPTS = (or_none(COUNT), or_none(lasting(DAY / 864_000)), or_none(kind(RetryPolicy)))


def attempts(make: Callable[..., Any]) -> list[Parameter]:
    """Return the parameters that several definitions share."""
    return [
        Parameter("max_attempts", lambda value: make(max_attempts=value), ATTEMPTS[0]),
        Parameter("timeout", lambda value: make(timeout=value), ATTEMPTS[1]),
        Parameter("retry", lambda value: make(retry=value), ATTEMPTS[2]),
    ]


def handler(**options: Any) -> Any:  # noqa: ANN401 a handler
    """Return a handler that runs in a process."""
    return SDK.Handler(words, read_blocking, style=HandlerStyle.PROCESS, **options)


def is_key(value: object) -> bool:
    """Accept idempotency keys."""
    return isinstance(value, str) and value.isascii() and value.isprintable() and 0 < len(value) < 256


def worker(**options: Any) -> Any:  # noqa: ANN401 a worker
    """Return a worker."""
    return SDK.Worker(CLIENT, [], **options)


def nothing(_value: object) -> bool:
    """Accept nothing."""
    return False


def is_moment(value: object) -> bool:
    """Accept times with a time zone."""
    return isinstance(value, datetime) and value.tzinfo is not None


def is_importable(value: object) -> bool:
    """Accept no value: none of them is a function of two arguments."""
    return value is read


def claim(stage_type: object) -> None:
    """Claim a task; there is none."""
    with suppress(LookupError):
        MANAGER.claim(stage_type)


CONSTRUCTORS: list[Parameter] = [
    Parameter("name", SDK.JobType, text(2, 50)),
    Parameter("data", lambda value: SDK.JobType("ab", data=value), is_model),
    Parameter("name", lambda value: SDK.StageType(value, task=Word), lambda v: text(1, 50)(v) and v != "."),
    *(
        Parameter(name, lambda value, name=name: SDK.StageType("s", **{"task": Word, name: value}), is_model)
        for name in ("task", "task_metadata", "data", "metadata")
    ),
    Parameter("result", lambda value: SDK.StageType("s", task=Word, result=value), or_none(is_model)),
    *attempts(lambda **options: SDK.StageType("s", task=Word, **options)),
    *attempts(lambda **options: SDK.NewTask(Word(), **options)),
    *attempts(SDK.TaskDefaults),
    Parameter("delay", lambda value: SDK.NewTask(Word(), delay=value), or_none(lasting(0 * DAY))),
    Parameter(
        "available_at",
        lambda value: SDK.NewTask(Word(), available_at=value),
        or_none(is_moment),
    ),
    Parameter("stage_type", SDK.NewStage, kind(StageType)),
    Parameter("tasks", lambda value: SDK.NewStage(words, value), kind(list, tuple)),
    Parameter("waiting", lambda value: SDK.NewStage(words, waiting=value), kind(bool)),
    Parameter("weight", lambda value: SDK.NewStage(words, weight=value), or_none(between(0.001, 1000, (int, float)))),
    Parameter("task_defaults", lambda value: SDK.NewStage(words, task_defaults=value), or_none(kind(TaskDefaults))),
    Parameter("delay", SDK.RetryPolicy.fixed, lasting(0 * DAY)),
    Parameter("delay", SDK.RetryPolicy.exponential, lasting(0 * DAY)),
    Parameter("strategy", lambda value: SDK.RetryPolicy(value, DAY), lambda value: value == "fixed"),
    Parameter("max_delay", lambda value: SDK.RetryPolicy.exponential(DAY, max_delay=value), or_none(lasting(0 * DAY))),
    Parameter("factor", lambda value: SDK.RetryPolicy.exponential(factor=value), between(1, 100, (int, float))),
    Parameter("jitter", lambda value: SDK.RetryPolicy.fixed(DAY, jitter=value), between(0, 1, (int, float))),
    Parameter("failure_rate", lambda value: SDK.BreakerPolicy(failure_rate=value), between(1e-300, 1, (int, float))),
    Parameter("min_calls", lambda value: SDK.BreakerPolicy(min_calls=value), or_none(COUNT)),
    Parameter("window", lambda value: SDK.BreakerPolicy(window=value), is_window),
    Parameter("pause", lambda value: SDK.BreakerPolicy(pause=value), lasting(INSTANT, DAY / 24)),
    Parameter("stage_type", lambda value: SDK.Handler(value, read), kind(StageType)),
    Parameter("function", lambda value: SDK.Handler(words, value), is_importable),
    Parameter("style", lambda value: SDK.Handler(words, read, style=value), lambda value: value is HandlerStyle.ASYNC),
    Parameter("concurrency", lambda value: handler(concurrency=value), COUNT),
    Parameter("timeout", lambda value: handler(timeout=value), or_none(lasting(INSTANT, timedelta.max))),
    Parameter("lifespan", lambda value: SDK.Handler(words, read, lifespan=value), lambda value: value is None),
    Parameter("recycle_after", lambda value: handler(recycle_after=value), or_none(between(1, 2**63 - 1))),
    Parameter("memory_limit", lambda value: handler(memory_limit=value), or_none(between(1, 2**63 - 1))),
    Parameter("circuit_breaker", lambda value: handler(circuit_breaker=value), lambda value: value is None),
    Parameter("client", lambda value: SDK.Worker(value, []), kind(JobnikClient)),
    Parameter("handlers", lambda value: SDK.Worker(CLIENT, value), is_empty_list),
    Parameter("middleware", lambda value: worker(middleware=value), is_empty_list),
    Parameter("listeners", lambda value: worker(listeners=value), is_empty_list),
    Parameter("lease", lambda value: worker(lease=value), lasting(DAY / 86_400, DAY / 24)),
    *(
        Parameter(name, lambda value, name=name: worker(**{name: value}), lasting(0 * DAY))
        for name in ("drain_timeout", "poll_initial_delay", "poll_max_delay")
    ),
    Parameter("settings", lambda value: SDK.Worker.from_settings(value, []), nothing),
    Parameter("timeout", lambda value: SDK.JobnikClient("http://a", timeout=value), lasting(DAY / 86_400_000)),
    Parameter("client", SDK.Consumer, kind(JobnikClient)),
    Parameter("timeout", lambda value: SDK.Producer(CLIENT, timeout=value), or_none(lasting(DAY / 86_400_000))),
    Parameter("transport", lambda value: SDK.JobnikClient("http://a", transport=value), lambda value: value is None),
    Parameter("delay", SDK.RetryLater, kind(timedelta)),
    Parameter("delay", SDK.Snooze, kind(timedelta)),
    Parameter("handler", lambda value: TESTING.run_handler(value, Word()), nothing),
    Parameter(
        "context",
        lambda value: TESTING.run_handler(Handler(words, read), Word(), value),
        lambda value: value is None,
    ),
    Parameter("worker", lambda value: TESTING.work_off(value, UUID(int=1)), nothing),
    Parameter("job", lambda value: TESTING.work_off(worker(), value), nothing),
    Parameter("stage_type", TESTING.context_for, kind(StageType)),
    *(
        Parameter(name, lambda value, name=name: TESTING.context_for(words, **{name: value}), is_valid)
        for name, is_valid in (
            ("attempt", COUNT),
            ("max_attempts", COUNT),
            ("timeout", or_none(lasting(INSTANT))),
            ("metadata", kind(BaseModel)),
            ("stage_data", or_none(kind(BaseModel))),
            ("stage_metadata", or_none(kind(BaseModel))),
            ("job_data", or_none(kind(dict))),
            ("results", or_none(kind(dict))),
        )
    ),
    Parameter("part_a_only", lambda value: TESTING.FakeManager(part_a_only=value), kind(bool)),
    Parameter("by", lambda value: TESTING.FakeManager().advance(value), lasting(0 * DAY, 10 * YEAR)),
    Parameter("stage_type", claim, kind(StageType)),
    Parameter("stage_type", MANAGER.tasks, kind(StageType)),
    Parameter("job_type", MANAGER.jobs, kind(JobType)),
]


class Call(NamedTuple):
    """A parameter of a method of `Target`, and which values are valid."""

    method: str
    name: str
    is_valid: Callable[[Any], bool]


CALLS = [
    Call("job", "job_type", kind(JobType)),
    Call("job", "priority", lambda value: value == "HIGH"),
    Call("job", "stages", is_empty_list),
    Call("job", "unique_key", or_none(text(1, 200))),
    Call("unique_job", "unique_for", or_none(lasting(DAY / 86_400_000))),
    Call("job", "idempotency_key", or_none(is_key)),
    Call("job", "traceparent", lambda value: value is None),
    Call("stage", "job", nothing),
    Call("stage", "stage_type", kind(StageType)),
    Call("stage", "waiting", kind(bool)),
    Call("stage", "weight", or_none(between(0.001, 1000, (int, float)))),
    Call("stage", "task_defaults", or_none(kind(TaskDefaults))),
    Call("stage", "idempotency_key", or_none(is_key)),
    Call("tasks", "stage", nothing),
    Call("tasks", "tasks", is_empty_list),
    Call("tasks", "idempotency_key", or_none(is_key)),
    Call("stream", "batch", or_none(COUNT)),
    Call("stream", "in_flight", COUNT),
    Call("stream", "on_progress", or_none(callable)),
    Call("jobs", "status", lambda value: value is None or value in ([], (), "FAILED")),
    Call("jobs", "created_since", or_none(is_moment)),
    Call("jobs", "created_until", or_none(is_moment)),
    Call("jobs", "metadata", lambda value: value in (None, {})),
    Call("jobs", "oldest_first", kind(bool)),
    Call("jobs", "limit", or_none(COUNT)),
    Call("jobs", "progress", kind(bool)),
    Call("jobs", "job_type", or_none(lambda value: isinstance(value, JobType) or text(0, 50)(value))),
]

VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 5, 2**31 - 1, 2**31, 2**63, 10**400, 0.5, -0.5, 1e300, float("nan"), float("inf")),
    *("", ".", "x", "HIGH", "fixed", "x" * 300, "\0a", "\ud800a", "line\nbreak", b"x"),
    *(
        [],
        (),
        {},
        [5],
        {"a": object()},
        {1: 2},
        object(),
        Word(),
        Word,
        int,
        Priority.HIGH,
        TaskStatus.FAILED,
    ),
    *(timedelta(), -DAY, DAY, timedelta(seconds=1), timedelta(microseconds=1), timedelta.max, timedelta.min, YEAR),
    *(datetime(2026, 1, 1), datetime(2026, 1, 1, tzinfo=UTC), JOB, words, RetryPolicy.fixed(DAY), TaskDefaults()),  # noqa: DTZ001 on purpose
    *(NewTask(Word()), NewStage(words), lambda: None, HandlerStyle.ASYNC, HandlerStyle.PROCESS),
]


class Target:
    """A job with a stage on a manager in memory, and calls with one wrong argument."""

    async def open(self) -> "Target":
        """Create the job."""
        self._producer = SDK.Producer(FakeManager().client())
        self._job = await self._producer.create_job(JOB, stages=[NewStage(words)])
        return self

    async def job(self, job_type: Any = JOB, **options: Any) -> None:  # noqa: ANN401 any value
        """Create a job."""
        await self._producer.create_job(job_type, **options)

    async def unique_job(self, unique_for: object) -> None:
        """Create a unique job."""
        await self._producer.create_job(JOB, unique_key="a", unique_for=unique_for)

    async def stage(self, job: Any = _OWN, stage_type: Any = words, **options: Any) -> None:  # noqa: ANN401 any value
        """Create a stage."""
        await self._producer.create_stage(self._job if job is _OWN else job, stage_type, **options)

    async def tasks(self, stage: Any = _OWN, tasks: Any = (), **options: Any) -> None:  # noqa: ANN401 any value
        """Create tasks."""
        await self._producer.create_tasks(self._job.stages[0] if stage is _OWN else stage, words, tasks, **options)

    async def stream(self, **options: Any) -> None:  # noqa: ANN401 any value
        """Stream tasks."""
        await self._producer.stream_tasks(self._job.stages[0], words, [], **options)

    async def jobs(self, **filters: Any) -> None:  # noqa: ANN401 any value
        """List jobs."""
        jobs: AsyncGenerator[Any] = self._producer.list_jobs(**filters)
        async for _job in jobs:
            pass


async def _check(name: str, is_valid: Callable[[Any], bool], call: Callable[[Any], Any], value: object) -> None:
    try:
        called = call(value)
        if asyncio.iscoroutine(called):
            await called
    except (TypeError, ConfigurationError, InvalidPayloadError) as error:
        message = str(error)
        assert not is_valid(value), message
        assert name.removesuffix("_type") in message
        assert "\n" not in message
        assert len(message) < 400
    except JobnikError as error:
        raise AssertionError(f"{name}={value!r} was sent: {error}") from error
    else:
        assert is_valid(value), f"{name}={value!r} was accepted"


@pytest.mark.parametrize("parameter", CONSTRUCTORS, ids=[one.name for one in CONSTRUCTORS])
async def test_constructors_refuse_what_cannot_work(parameter: Parameter) -> None:
    """They accept exactly the values that the manager and the worker can use."""
    for value in VALUES:
        await _check(parameter.name, parameter.is_valid, parameter.call, value)


@pytest.mark.parametrize(("method", "name", "is_valid"), CALLS)
async def test_calls_refuse_what_cannot_work(method: str, name: str, is_valid: Callable[[Any], bool]) -> None:
    """Before they send anything; what they accept, the manager accepts."""
    target: Any = getattr(await Target().open(), method)
    for value in VALUES:
        await _check(name, is_valid, lambda given: target(**{name: given}), value)


@given(
    st.sampled_from(CONSTRUCTORS),
    st.one_of(
        st.integers(), st.floats(), st.text(max_size=60), st.timedeltas(), st.datetimes(), st.binary(), st.booleans()
    ),
)
@settings(max_examples=100, deadline=None)
async def test_generated_arguments(parameter: Parameter, value: object) -> None:
    """Any number, text or duration is either valid or refused by name."""
    await _check(parameter.name, parameter.is_valid, parameter.call, value)


@pytest.mark.parametrize("given_container", [None, {}, "handlers", b"x", 5, Handler(words, read), Worker, [5], {1}])
def test_run_names_what_it_needs(given_container: Any) -> None:  # noqa: ANN401 any value
    """Handlers, or a container; a single handler is neither."""
    with pytest.raises(TypeError, match=r"^(container must be a list of handlers|Each handler that runs must be)"):
        run(given_container)


async def test_work_off_needs_a_timeout_with_a_unit() -> None:
    """A plain number has none."""
    with pytest.raises(TypeError, match=r"^timeout must be a timedelta"):
        await TESTING.work_off(worker(), UUID(int=1), 5)
