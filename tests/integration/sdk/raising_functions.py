"""Handlers that raise exceptions of every class, including classes that break what Python does with exceptions."""

import asyncio
import builtins
import concurrent.futures
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

from jobnik_sdk import StageType, TaskContext
from jobnik_sdk import errors as jobnik_errors
from pydantic import BaseModel
from typing_extensions import override


class Choice(BaseModel):
    """The data of a task: a key of `EXCEPTIONS`."""

    name: str


class Anything(BaseModel):
    """A result."""


choices = StageType("choices", task=Choice, result=Anything)


class StrError(Exception):
    """Its message cannot be read."""

    @override
    def __str__(self) -> str:
        raise SystemExit(4)

    __repr__ = __str__


class ReduceError(Exception):
    """It cannot be pickled."""

    @override
    def __reduce__(self) -> NoReturn:
        raise KeyboardInterrupt


class ModuleError(Exception):
    """Its class has no module."""

    __module__: Any = None


class _Nameless(type):
    @property
    def __name__(cls) -> NoReturn:  # pyright: ignore[reportIncompatibleVariableOverride] on purpose
        raise GeneratorExit


class NamelessError(Exception, metaclass=_Nameless):
    """Its class has no name."""


class CauseError(Exception):
    """Its cause cannot be read."""

    @property
    def __cause__(self) -> NoReturn:  # pyright: ignore[reportIncompatibleVariableOverride] on purpose
        raise SystemExit(5)


class ClassError(Exception):
    """Its class cannot be read."""

    @property
    def __class__(self) -> NoReturn:  # pyright: ignore[reportIncompatibleMethodOverride] on purpose
        raise KeyboardInterrupt


class PoliteExit(SystemExit):
    """A subclass of an exception that ends a program."""


def _long_chain() -> BaseException:
    error = ValueError("first")
    for number in range(3000):
        following = ValueError(number)
        following.__cause__, error = error, following
    return error


def _deep_group() -> BaseException:
    error = BaseExceptionGroup[BaseException]("group", [KeyboardInterrupt()])
    for _ in range(3000):
        error = BaseExceptionGroup[BaseException]("group", [error])
    return error


def _cycle() -> BaseException:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    return first


_ARGUMENTS: Final[Mapping[type[BaseException], tuple[Any, ...]]] = {
    BaseExceptionGroup: ("group", [KeyboardInterrupt(), ValueError("a")]),
    ExceptionGroup: ("group", [ValueError("a"), ExceptionGroup("inner", [OSError(5, "b")])]),
    UnicodeDecodeError: ("utf-8", b"\xff", 0, 1, "reason"),
    UnicodeEncodeError: ("utf-8", "\ud800", 0, 1, "reason"),
    UnicodeTranslateError: ("\ud800", 0, 1, "reason"),
}


def _instance(kind: type[BaseException]) -> Callable[[], BaseException]:
    return lambda: kind(*_ARGUMENTS.get(kind, ("message",)))


EXCEPTIONS: Final[Mapping[str, Callable[[], BaseException]]] = {
    **{
        name: _instance(kind)
        for name, kind in vars(builtins).items()
        if isinstance(kind, type) and issubclass(kind, BaseException)
    },
    **{
        kind.__name__: _instance(kind)
        for kind in (
            *(asyncio.CancelledError, asyncio.InvalidStateError, concurrent.futures.BrokenExecutor),
            *(StrError, ReduceError, ModuleError, CauseError, ClassError, PoliteExit),
            *(jobnik_errors.Cancelled, jobnik_errors.DoNotRetry),
        )
    },
    "NamelessError": lambda: NamelessError("message"),
    "long chain": _long_chain,
    "deep group": _deep_group,
    "cycle": _cycle,
    "long message": lambda: ValueError("x" * 10_000_000),
    "surrogates": lambda: ValueError("\ud800\0"),
    "arguments": lambda: ValueError(StrError(), object(), lambda: None),
}
TYPES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("long chain", "cycle", "long message", "surrogates", "arguments"), "ValueError"),
    "deep group": "BaseExceptionGroup",
    "NamelessError": "Exception",
    "ClassError": "KeyboardInterrupt",
    "EnvironmentError": "OSError",
    "IOError": "OSError",
}
"""The types that are reported, where they differ from the keys of `EXCEPTIONS`."""


def raise_it(task: Choice, _context: TaskContext) -> Anything:
    """Raise an exception, in a thread or a process; or return, if the name is empty."""
    if task.name:
        error = EXCEPTIONS[task.name]()
        raise error
    return Anything()


async def raise_it_async(task: Choice, context: TaskContext) -> Anything:
    """Raise an exception on the event loop."""
    await asyncio.sleep(0)
    return raise_it(task, context)


async def raise_it_in_a_task(task: Choice, context: TaskContext) -> Anything:
    """Raise an exception in a task that the handler creates."""
    return await asyncio.create_task(raise_it_async(task, context))
