"""What a worker is to do with the tasks of a stage type, and where it runs."""

import inspect
import pickle
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Generic, Literal, TypeAlias, overload

from jobnik_sdk.errors import ConfigurationError
from jobnik_sdk.execution.context import TaskContext
from jobnik_sdk.model.arguments import check_duration, check_kind
from jobnik_sdk.model.definitions import DataT, MetadataT, ResultT, StageType, TaskMetadataT, TaskT

AsyncFunction: TypeAlias = Callable[[TaskT, TaskContext[TaskMetadataT, DataT, MetadataT]], Awaitable[ResultT]]
"""A coroutine function: it takes the task's data and context, and returns the result."""

PlainFunction: TypeAlias = Callable[[TaskT, TaskContext[TaskMetadataT, DataT, MetadataT]], ResultT]
"""A plain function: it takes the task's data and context, and returns the result."""


class HandlerStyle(StrEnum):
    """Where a handler runs."""

    ASYNC = "async"
    """A coroutine function on the event loop: for work that waits for others."""

    THREAD = "thread"
    """A plain function in a thread: for work that blocks, or computes in libraries that release the GIL."""

    PROCESS = "process"
    """A plain function, importable by name, in a process: for work that computes in Python."""


@dataclass(frozen=True, init=False)
class AnyHandler:
    """A handler of any types.

    It is a class of its own, since a type checker that wants a `Handler[Any, Any, …]` does not look whether function
    and stage type fit each other.
    """

    stage_type: StageType[Any, Any, Any, Any, Any]
    function: Callable[..., Any]
    style: HandlerStyle
    concurrency: int
    timeout: timedelta | None
    recycle_after: int | None
    memory_limit: int | None

    def limit(self, timeout: timedelta | None) -> timedelta | None:
        """Return how long an attempt may take at a task that allows `timeout` itself: the shorter of both."""
        if timeout is None or self.timeout is None:
            return timeout if self.timeout is None else self.timeout
        return min(timeout, self.timeout)

    def _check_style(self) -> None:
        function, style = self.function, self.style
        check_kind("A handler's stage_type", self.stage_type, StageType)
        check_kind("A handler's style", style, HandlerStyle)
        is_coroutine = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
        if is_coroutine != (style is HandlerStyle.ASYNC):
            wanted = "a coroutine function (async def)" if style is HandlerStyle.ASYNC else "a plain function (def)"
            raise ConfigurationError(f"A handler of style {style} is {wanted}, which {function!r} is not.")
        _check_parameters(function)
        if style is HandlerStyle.PROCESS:
            for thing in (function, self.stage_type):
                _check_importable(thing)

    def _check_options(self) -> None:
        if self.concurrency < 1:
            raise ConfigurationError(f"A handler's concurrency is 1 or more, not {self.concurrency}.")
        if self.timeout is not None:
            check_duration("A handler's timeout", self.timeout)
            if self.timeout <= timedelta():
                raise ConfigurationError(
                    f"A handler's timeout is longer than nothing, or None for no limit: {self.timeout}."
                )
        for name in ("recycle_after", "memory_limit"):
            value = getattr(self, name)
            if value is None:
                continue
            if self.style is not HandlerStyle.PROCESS:
                raise ConfigurationError(f"{name} is for processes: leave it out, or choose HandlerStyle.PROCESS.")
            if value < 1:
                raise ConfigurationError(f"A handler's {name} is 1 or more, or None for no limit, not {value}.")


class Handler(AnyHandler, Generic[TaskT, ResultT, TaskMetadataT, DataT, MetadataT]):
    """A function for the tasks of a stage type, and how it is run.

    Up to `concurrency` tasks are worked on at the same time (default 1). `timeout` is how long one attempt may take
    (None: no longer than the task itself says). A process ends, and the next task gets a new one, after `recycle_after`
    tasks (None: never), or when it holds more than `memory_limit` bytes after a task (None: however many).

    >>> Handler(thumbnails, make_thumbnail, style=HandlerStyle.PROCESS, concurrency=4, timeout=timedelta(minutes=5))

    Raises:
        ConfigurationError: the function does not fit its style, wants more than the two arguments of a handler, or an
            option cannot work.
        TypeError: an argument is of another type.
    """

    @overload
    def __init__(
        self,
        stage_type: StageType[TaskT, ResultT, TaskMetadataT, DataT, MetadataT],
        function: AsyncFunction[TaskT, TaskMetadataT, DataT, MetadataT, ResultT],
        *,
        style: Literal[HandlerStyle.ASYNC] = ...,
        concurrency: int = ...,
        timeout: timedelta | None = ...,
    ) -> None: ...

    @overload
    def __init__(
        self,
        stage_type: StageType[TaskT, ResultT, TaskMetadataT, DataT, MetadataT],
        function: PlainFunction[TaskT, TaskMetadataT, DataT, MetadataT, ResultT],
        *,
        style: Literal[HandlerStyle.THREAD],
        concurrency: int = ...,
        timeout: timedelta | None = ...,
    ) -> None: ...

    @overload
    def __init__(
        self,
        stage_type: StageType[TaskT, ResultT, TaskMetadataT, DataT, MetadataT],
        function: PlainFunction[TaskT, TaskMetadataT, DataT, MetadataT, ResultT],
        *,
        style: Literal[HandlerStyle.PROCESS],
        concurrency: int = ...,
        timeout: timedelta | None = ...,
        recycle_after: int | None = ...,
        memory_limit: int | None = ...,
    ) -> None: ...

    def __init__(  # noqa: PLR0913 the options of a handler belong in one place
        self,
        stage_type: StageType[TaskT, ResultT, TaskMetadataT, DataT, MetadataT],
        function: AsyncFunction[TaskT, TaskMetadataT, DataT, MetadataT, ResultT]
        | PlainFunction[TaskT, TaskMetadataT, DataT, MetadataT, ResultT],
        *,
        style: HandlerStyle = HandlerStyle.ASYNC,
        concurrency: int = 1,
        timeout: timedelta | None = None,
        recycle_after: int | None = None,
        memory_limit: int | None = None,
    ) -> None:
        fields = {
            "stage_type": stage_type,
            "function": function,
            "style": style,
            "concurrency": concurrency,
            "timeout": timeout,
            "recycle_after": recycle_after,
            "memory_limit": memory_limit,
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)
        self._check_style()
        self._check_options()


def _check_parameters(function: Callable[..., Any]) -> None:
    try:
        inspect.signature(function).bind(None, None)
    except TypeError as error:
        raise ConfigurationError(
            f"A handler takes a task's data and its context, and {function!r} cannot be called so: {error}. "
            "Bind what else it needs, by functools.partial for example."
        ) from None
    except ValueError:  # it is built in, and tells nothing of its parameters
        return


def _check_importable(thing: object) -> None:
    try:
        pickle.dumps(thing)
    except Exception as error:
        raise ConfigurationError(
            f"A handler of style process, with its models, is found by its name in another process, and {thing!r} "
            f"cannot be: {error}. Define it at the top of a module."
        ) from error
