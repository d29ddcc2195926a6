"""Running a handler in one of three styles: a coroutine, or a plain function in a thread or in a process."""

import asyncio
import contextvars
import inspect
import pickle
import traceback
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self, TypeAlias

from pydantic import BaseModel
from typing_extensions import override

from jobnik_sdk import context as contexts
from jobnik_sdk.context import TaskContext
from jobnik_sdk.definitions import ResultT, TaskMetadataT, TaskT
from jobnik_sdk.errors import ConfigurationError
from jobnik_sdk.payloads import to_document
from jobnik_sdk.processes import Processes

AsyncHandler: TypeAlias = Callable[[TaskT, TaskContext[TaskMetadataT]], Awaitable[ResultT]]
"""A coroutine function: it takes the task's data and context, and returns the result."""

PlainHandler: TypeAlias = Callable[[TaskT, TaskContext[TaskMetadataT]], ResultT]
"""A plain function: it takes the task's data and context, and returns the result."""


class HandlerStyle(StrEnum):
    """Where a handler runs."""

    ASYNC = "async"
    """A coroutine function on the event loop: for work that waits for others."""

    THREAD = "thread"
    """A plain function in a thread: for work that blocks, or computes in libraries that release the GIL."""

    PROCESS = "process"
    """A plain function, importable by name, in a process: for work that computes in Python."""


@dataclass(frozen=True)
class Failure:
    """Why an attempt failed, in words that travel between processes."""

    error_type: str
    error_message: str
    traceback: str | None

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """Describe an exception with its traceback."""
        try:
            message = str(error)
        except Exception:  # noqa: BLE001 also its words are the handler's code
            message = "its message cannot be read"
        return cls(type(error).__name__, message, "".join(traceback.format_exception(error)))


class Runner(ABC):
    """Runs a handler on one task after the other, and checks each result against `result` where that is a model."""

    def __init__(self, handler: Callable[..., Any], result: type[Any] | None) -> None:
        self._handler = handler
        self._result = result

    async def run(self, data: BaseModel, context: TaskContext[Any]) -> Failure | None:
        """Run the handler and return what went wrong, if anything did: whatever it raises fails this attempt alone."""
        try:
            return await self._run(data, context)
        except (KeyboardInterrupt, GeneratorExit):  # not the handler's: the whole process or event loop is to end
            raise
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return Failure.of(error)
        except BaseException as error:  # noqa: BLE001 a handler may raise anything
            return Failure.of(error)

    @abstractmethod
    async def _run(self, data: BaseModel, context: TaskContext[Any]) -> Failure | None: ...

    async def close(self) -> None:  # noqa: B027 most runners hold nothing
        """Give back threads or processes, after the calls that they are in."""


class _AsyncRunner(Runner):
    @override
    async def _run(self, data: BaseModel, context: TaskContext[Any]) -> Failure | None:
        _check_result(await self._handler(data, context), self._result)
        return None


class _ThreadRunner(Runner):
    def __init__(self, handler: Callable[..., Any], result: type[Any] | None, concurrency: int) -> None:
        super().__init__(handler, result)
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="jobnik-handler")

    @override
    async def _run(self, data: BaseModel, context: TaskContext[Any]) -> Failure | None:
        here = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: here.run(_call, self._handler, self._result, data, context)
        )

    @override
    async def close(self) -> None:
        await asyncio.to_thread(self._threads.shutdown)


class _ProcessRunner(Runner):
    def __init__(self, handler: Callable[..., Any], result: type[Any] | None) -> None:
        super().__init__(handler, result)
        self._processes = Processes()

    @override
    async def _run(self, data: BaseModel, context: TaskContext[Any]) -> Failure | None:
        return await self._processes.call(_call_in_process, self._handler, self._result, data, context)

    @override
    async def close(self) -> None:
        await self._processes.close()


def runner_for(handler: Callable[..., Any], style: HandlerStyle, concurrency: int, result: type[Any] | None) -> Runner:
    """Return the runner for a handler's style.

    Raises:
        ConfigurationError: the handler does not fit its style.
    """
    is_coroutine = inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__)
    if is_coroutine != (style is HandlerStyle.ASYNC):
        wanted = "a coroutine function (async def)" if style is HandlerStyle.ASYNC else "a plain function (def)"
        raise ConfigurationError(f"A handler of style {style} is {wanted}, which {handler!r} is not.")
    match style:
        case HandlerStyle.ASYNC:
            return _AsyncRunner(handler, result)
        case HandlerStyle.THREAD:
            return _ThreadRunner(handler, result, concurrency)
        case HandlerStyle.PROCESS:
            _check_importable(handler)
            return _ProcessRunner(handler, result)


def _call(
    handler: Callable[..., Any], result: type[Any] | None, data: BaseModel, context: TaskContext[Any]
) -> Failure | None:
    # Exceptions become words here: not every exception survives pickling, and none may end a thread or a process.
    try:
        _check_result(handler(data, context), result)
    except BaseException as error:  # noqa: BLE001 a handler may raise anything
        return Failure.of(error)
    return None


def _call_in_process(
    handler: Callable[..., Any], result: type[Any] | None, data: BaseModel, context: TaskContext[Any]
) -> Failure | None:
    contexts.enter(context)
    return _call(handler, result, data, context)


def _check_result(value: object, model: type[BaseModel] | None) -> None:
    if model is not None:
        to_document(value, model, "result")


def _check_importable(handler: Callable[..., Any]) -> None:
    try:
        pickle.dumps(handler)
    except Exception as error:
        raise ConfigurationError(
            f"A handler of style process is found by its name in another process, and {handler!r} cannot be: {error}."
        ) from error
