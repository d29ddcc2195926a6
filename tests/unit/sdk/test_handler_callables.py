"""A handler that did not run is never completed, however its function is wrapped."""

import asyncio
import functools
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from concurrent.futures import Future
from typing import Any, Final, TypeAlias

import pytest
from jobnik_sdk import Completed, ConfigurationError, Failed, Handler, HandlerStyle, StageType, TaskContext
from jobnik_sdk.execution.runners import runner_for
from jobnik_sdk.testing import context_for
from pydantic import BaseModel, RootModel


class Task(BaseModel):
    """The data of a task."""


class Numbers(RootModel[list[int]]):
    """A result that pydantic would also read from a generator, and so run it."""


stages: Final = [StageType("plain", task=Task), StageType("numbers", task=Task, result=Numbers)]
Function: TypeAlias = Callable[..., Any]
ran: list[str] = []


def _generator(_task: Task, _context: TaskContext) -> Generator[int]:
    ran.append("generator")
    yield 1


async def _async_generator(_task: Task, _context: TaskContext) -> AsyncGenerator[int]:
    ran.append("async generator")
    yield 1


async def _coroutine(_task: Task, _context: TaskContext) -> None:
    ran.append("coroutine")


class _Lazy:
    """An awaitable that is no coroutine."""

    def __init__(self, _task: Task, _context: TaskContext) -> None: ...

    def __await__(self) -> Generator[None]:
        ran.append("awaitable")
        yield


def _future(_task: Task, _context: TaskContext) -> Future[None]:
    return Future()


class _Methods:
    """The same as methods, and as an object that can be called."""

    def generator(self, task: Task, context: TaskContext) -> Generator[int]:
        yield from _generator(task, context)

    async def coroutine(self, task: Task, context: TaskContext) -> None:
        await _coroutine(task, context)

    async def __call__(self, task: Task, context: TaskContext) -> AsyncGenerator[int]:
        async for value in _async_generator(task, context):
            yield value


def _as_it_is(function: Function) -> Function:
    return function


def _partial(function: Function) -> Function:
    return functools.partial(functools.partial(function))


def _decorated(function: Function) -> Function:
    @functools.wraps(function)
    def wrapper(task: Task, context: TaskContext) -> object:
        return function(task, context)

    return wrapper


def _owned(function: Function) -> Function:
    owner: Any = type("Owner", (), {"__call__": staticmethod(functools.partial(function))})
    return owner()


WRAPPERS: Final[list[Callable[[Function], Function]]] = [
    *(_as_it_is, _partial, _decorated, _owned, staticmethod, functools.cache, functools.singledispatch),
    *(lambda function: _partial(_owned(function)), lambda function: _owned(_decorated(function))),
]
UNFINISHED: Final[dict[str, Function]] = {
    "generator": _generator,
    "async generator": _async_generator,
    "coroutine": _coroutine,
    "awaitable": _Lazy,
    "future": _future,
    "generator method": _Methods().generator,
    "coroutine method": _Methods().coroutine,
    "callable object": _Methods(),
}


@pytest.mark.parametrize("stage", stages, ids=lambda stage: stage.name)
@pytest.mark.parametrize("function", UNFINISHED.values(), ids=UNFINISHED)
@pytest.mark.parametrize("style", [HandlerStyle.ASYNC, HandlerStyle.THREAD])
async def test_a_handler_that_did_not_run_is_not_completed(
    stage: StageType[Any, Any], function: Function, style: HandlerStyle
) -> None:
    """Such a handler is refused when it is defined, if it can be recognised; otherwise its attempt fails."""
    make: Any = Handler
    for wrap in WRAPPERS:
        ran.clear()
        try:
            handler = make(stage, wrap(function), style=style)
        except ConfigurationError:
            continue
        runner = runner_for(handler)
        async with asyncio.timeout(5):
            outcome = await runner.run(Task(), context_for(stage))
        await runner.close()
        if style is HandlerStyle.ASYNC and ran == ["coroutine"]:  # it is awaited, so it ran
            assert isinstance(outcome, Failed if stage.result else Completed)
        else:
            assert isinstance(outcome, Failed)
            assert not ran


def test_a_generator_is_refused_by_name() -> None:
    """The message says what is wrong, and what to do."""
    make: Any = Handler
    with pytest.raises(ConfigurationError, match=r"must not be a generator function.*remove `yield` from .*_generator"):
        make(stages[0], functools.partial(_generator), style=HandlerStyle.THREAD)
    with pytest.raises(ConfigurationError, match=r"must be a function, not a class: .*_Lazy"):
        make(stages[0], _Lazy)


async def test_a_returned_coroutine_is_named() -> None:
    """The error names the type of what the handler returned."""
    make: Any = Handler

    def delegate(task: Task, context: TaskContext) -> Awaitable[None]:
        return _coroutine(task, context)

    runner = runner_for(make(stages[0], delegate, style=HandlerStyle.THREAD))
    outcome = await runner.run(Task(), context_for(stages[0]))
    await runner.close()
    assert isinstance(outcome, Failed)
    assert (outcome.error_type, outcome.message.partition(",")[0]) == (
        "ConfigurationError",
        "The handler returned an object of type coroutine",
    )
