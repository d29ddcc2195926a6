"""Handlers: the function for the tasks of a stage type, and how it runs."""

import inspect
import pickle
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import partial
from typing import Any, Final, Generic, Literal, TypeAlias, overload

from typing_extensions import TypeVar

from jobnik_sdk.errors import ConfigurationError
from jobnik_sdk.execution.context import TaskContext
from jobnik_sdk.http.circuit_breaker import BreakerPolicy
from jobnik_sdk.model.arguments import check_callable, check_duration, check_instance, check_integer, shown
from jobnik_sdk.model.definitions import DataT, MetadataT, ResultT, StageType, TaskMetadataT, TaskT

ResourceT = TypeVar("ResourceT", default=Any)

_MAX_BYTES: Final = 2**63 - 1

AsyncFunction: TypeAlias = Callable[[TaskT, TaskContext[TaskMetadataT, DataT, MetadataT]], Awaitable[ResultT]]
"""A coroutine function that takes the data and the context of a task, and returns the result."""

PlainFunction: TypeAlias = Callable[[TaskT, TaskContext[TaskMetadataT, DataT, MetadataT]], ResultT]
"""A plain function that takes the data and the context of a task, and returns the result."""

AsyncFunctionWithResource: TypeAlias = Callable[
    [TaskT, TaskContext[TaskMetadataT, DataT, MetadataT], ResourceT], Awaitable[ResultT]
]
"""A coroutine function that also takes the value of the handler's lifespan."""

PlainFunctionWithResource: TypeAlias = Callable[
    [TaskT, TaskContext[TaskMetadataT, DataT, MetadataT], ResourceT], ResultT
]
"""A plain function that also takes the value of the handler's lifespan."""


class HandlerStyle(StrEnum):
    """Where a handler runs. Choose according to how the handler spends its time."""

    ASYNC = "async"
    """A coroutine function (`async def`) on the event loop: for I/O with async libraries."""

    THREAD = "thread"
    """A plain function in a thread: for blocking calls, or computation in libraries that release the GIL."""

    PROCESS = "process"
    """A plain function in a process: for computation in Python. It must be importable by name."""


@dataclass(frozen=True, init=False)
class AnyHandler:
    """A handler for a stage type with any models.

    It is a separate class because, for a parameter of type `Handler[Any, …]`, a type checker would not compare the
    types of the function with those of the stage type.
    """

    stage_type: StageType[Any, Any, Any, Any, Any]
    function: Callable[..., Any]
    style: HandlerStyle
    concurrency: int
    timeout: timedelta | None
    lifespan: Callable[[], AbstractAsyncContextManager[Any] | AbstractContextManager[Any]] | None
    recycle_after: int | None
    memory_limit: int | None
    circuit_breaker: BreakerPolicy | None

    def attempt_timeout(self, task_timeout: timedelta | None) -> timedelta | None:
        """Return the time limit of an attempt: the limit of the task or of the handler, whichever is shorter."""
        if task_timeout is None or self.timeout is None:
            return task_timeout if self.timeout is None else self.timeout
        return min(task_timeout, self.timeout)

    def check_importable(self) -> None:
        """Check that another process can import the function, the models and the lifespan, if the style needs this.

        Raises:
            ConfigurationError: it cannot.
        """
        if self.style is HandlerStyle.PROCESS:
            for value in (self.function, self.stage_type, self.lifespan):
                _check_importable(value)

    def _check_style(self) -> None:
        function, style = self.function, self.style
        check_instance("The stage_type of a handler", self.stage_type, StageType)
        check_instance("The style of a handler", style, HandlerStyle)
        check_callable("The function of a handler", function)
        _check_callable(function)
        if self.lifespan is not None:
            _check_lifespan(self.lifespan)
        is_coroutine = any(map(inspect.iscoroutinefunction, (function, _innermost(function))))
        if is_coroutine != (style is HandlerStyle.ASYNC):
            wanted = "a coroutine function (async def)" if style is HandlerStyle.ASYNC else "a plain function (def)"
            raise ConfigurationError(f"A handler of style {style} must be {wanted}, but {function!r} is not.")
        _check_parameters(function, with_resource=self.lifespan is not None)
        if not _is_being_decorated(function):
            self.check_importable()

    def _check_options(self) -> None:
        check_integer("The concurrency of a handler", self.concurrency)
        if self.circuit_breaker is not None:
            check_instance("The circuit_breaker of a handler", self.circuit_breaker, BreakerPolicy)
        if self.timeout is not None:
            check_duration("The timeout of a handler", self.timeout)
            if self.timeout <= timedelta():
                raise ConfigurationError(
                    f"The timeout of a handler must be longer than 0, or None for no limit, not {self.timeout}."
                )
        for name in ("recycle_after", "memory_limit"):
            value = getattr(self, name)
            if value is None:
                continue
            if self.style is not HandlerStyle.PROCESS:
                raise ConfigurationError(f"{name} only applies to processes: omit it, or use HandlerStyle.PROCESS.")
            check_integer(f"The {name} of a handler", value, most=_MAX_BYTES)


class Handler(AnyHandler, Generic[TaskT, ResultT, TaskMetadataT, DataT, MetadataT]):
    """The function that processes the tasks of a stage type, and how it runs.

    >>> Handler(thumbnails, make_thumbnail, style=HandlerStyle.PROCESS, concurrency=4, timeout=timedelta(minutes=5))

    Args:
        stage_type: The stage type whose tasks the handler processes.
        function: Takes the data of a task and a `TaskContext`, and returns the result.
        style: Where the function runs. Default: `HandlerStyle.ASYNC`.
        concurrency: The maximum number of attempts at the same time. Default: 1.
        timeout: The time limit of one attempt; a shorter limit of the task takes precedence. None: only the task's
            limit applies.
        lifespan: Called without arguments; returns a context manager that opens what all attempts share, such as a
            database pool or the weights of a model. Its value is the third argument of the function. For
            `HandlerStyle.ASYNC`, it must be an async context manager. The worker enters it on its event loop before its
            first claim, and leaves it after its last report. For `HandlerStyle.THREAD`, the same happens to a plain
            context manager, in a thread. For `HandlerStyle.PROCESS`, each process enters it before its first task, and
            leaves it after its last one. There, the environment variable `JOBNIK_PROCESS_INDEX` numbers the processes
            of a handler from 0 to `concurrency` - 1.
        recycle_after: The number of tasks after which a process is replaced; None: never.
        memory_limit: The memory in bytes that a process may hold after a task; a process that holds more is replaced.
            None: no limit.
        circuit_breaker: When the worker pauses claims of this stage type because attempts fail. None: never, because
            attempts that fail and are retried do not mean that all others would fail as well.

    Raises:
        ConfigurationError: the function does not fit the style, does not take two arguments, or an option is out of
            range.
        TypeError: an argument has the wrong type.
    """

    @overload
    def __init__(
        self,
        stage_type: StageType[TaskT, ResultT, TaskMetadataT, DataT, MetadataT],
        function: AsyncFunction[TaskT, TaskMetadataT, DataT, MetadataT, ResultT],
        *,
        style: Literal[HandlerStyle.ASYNC] = HandlerStyle.ASYNC,
        concurrency: int = 1,
        timeout: timedelta | None = None,
        circuit_breaker: BreakerPolicy | None = None,
    ) -> None: ...

    @overload
    def __init__(
        self,
        stage_type: StageType[TaskT, ResultT, TaskMetadataT, DataT, MetadataT],
        function: AsyncFunctionWithResource[TaskT, TaskMetadataT, DataT, MetadataT, ResourceT, ResultT],
        *,
        lifespan: Callable[[], AbstractAsyncContextManager[ResourceT]],
        style: Literal[HandlerStyle.ASYNC] = HandlerStyle.ASYNC,
        concurrency: int = 1,
        timeout: timedelta | None = None,
        circuit_breaker: BreakerPolicy | None = None,
    ) -> None: ...

    @overload
    def __init__(
        self,
        stage_type: StageType[TaskT, ResultT, TaskMetadataT, DataT, MetadataT],
        function: PlainFunction[TaskT, TaskMetadataT, DataT, MetadataT, ResultT],
        *,
        style: Literal[HandlerStyle.THREAD],
        concurrency: int = 1,
        timeout: timedelta | None = None,
        circuit_breaker: BreakerPolicy | None = None,
    ) -> None: ...

    @overload
    def __init__(
        self,
        stage_type: StageType[TaskT, ResultT, TaskMetadataT, DataT, MetadataT],
        function: PlainFunctionWithResource[TaskT, TaskMetadataT, DataT, MetadataT, ResourceT, ResultT],
        *,
        lifespan: Callable[[], AbstractContextManager[ResourceT]],
        style: Literal[HandlerStyle.THREAD],
        concurrency: int = 1,
        timeout: timedelta | None = None,
        circuit_breaker: BreakerPolicy | None = None,
    ) -> None: ...

    @overload
    def __init__(
        self,
        stage_type: StageType[TaskT, ResultT, TaskMetadataT, DataT, MetadataT],
        function: PlainFunction[TaskT, TaskMetadataT, DataT, MetadataT, ResultT],
        *,
        style: Literal[HandlerStyle.PROCESS],
        concurrency: int = 1,
        timeout: timedelta | None = None,
        recycle_after: int | None = None,
        memory_limit: int | None = None,
        circuit_breaker: BreakerPolicy | None = None,
    ) -> None: ...

    @overload
    def __init__(
        self,
        stage_type: StageType[TaskT, ResultT, TaskMetadataT, DataT, MetadataT],
        function: PlainFunctionWithResource[TaskT, TaskMetadataT, DataT, MetadataT, ResourceT, ResultT],
        *,
        lifespan: Callable[[], AbstractContextManager[ResourceT]],
        style: Literal[HandlerStyle.PROCESS],
        concurrency: int = 1,
        timeout: timedelta | None = None,
        recycle_after: int | None = None,
        memory_limit: int | None = None,
        circuit_breaker: BreakerPolicy | None = None,
    ) -> None: ...

    def __init__(  # noqa: PLR0913 all options of a handler in one place
        self,
        stage_type: StageType[TaskT, ResultT, TaskMetadataT, DataT, MetadataT],
        function: Callable[..., Any],
        *,
        style: HandlerStyle = HandlerStyle.ASYNC,
        concurrency: int = 1,
        timeout: timedelta | None = None,
        lifespan: Callable[[], AbstractAsyncContextManager[Any] | AbstractContextManager[Any]] | None = None,
        recycle_after: int | None = None,
        memory_limit: int | None = None,
        circuit_breaker: BreakerPolicy | None = None,
    ) -> None:
        fields = {
            "stage_type": stage_type,
            "function": function,
            "style": style,
            "concurrency": concurrency,
            "timeout": timeout,
            "lifespan": lifespan,
            "recycle_after": recycle_after,
            "memory_limit": memory_limit,
            "circuit_breaker": circuit_breaker,
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)
        self._check_style()
        self._check_options()


def _innermost(function: Any) -> Any:  # noqa: ANN401 any callable
    """Return the function that is eventually called, as far as this can be determined without calling it."""
    while True:
        if isinstance(function, partial):
            function = function.func
        elif isinstance(function, staticmethod) or inspect.ismethod(function):
            function = function.__func__
        elif inspect.isroutine(function) or inspect.isclass(function):
            return function
        else:
            function = type(function).__call__


def _check_callable(function: Callable[..., Any]) -> None:
    """Refuse callables that return without having run anything."""
    called = _innermost(function)
    if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
        raise ConfigurationError(
            f"A handler must not be a generator function, because calling one runs none of its code: remove `yield` "
            f"from {function!r}."
        )
    if inspect.isclass(called):
        raise ConfigurationError(f"A handler must be a function, not a class: {function!r}. Pass one of its methods.")


def _check_parameters(function: Callable[..., Any], *, with_resource: bool) -> None:
    arguments, names = [None, None], "the data and the context of a task"
    if with_resource:
        arguments, names = [None, None, None], "the data and the context of a task, and the value of its lifespan"
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as error:
        raise ConfigurationError(
            f"A handler must accept {names}, but {function!r} does not: {error}. "
            "Bind further arguments, for example with functools.partial."
        ) from None
    except ValueError:  # built-in functions have no signature
        return


def _check_lifespan(lifespan: Callable[[], Any]) -> None:
    """Refuse what cannot be called without arguments, or cannot return a context manager."""
    kinds = (inspect.isgeneratorfunction, inspect.isasyncgenfunction, inspect.iscoroutinefunction)
    if not callable(lifespan) or any(is_kind(_innermost(lifespan)) for is_kind in kinds):
        raise ConfigurationError(
            f"The lifespan of a handler must be a function that returns a context manager, not {shown(lifespan)}: "
            "decorate a generator function with contextlib.contextmanager or asynccontextmanager."
        )
    try:
        inspect.signature(lifespan).bind()
    except TypeError as error:
        raise ConfigurationError(
            f"The lifespan of a handler is called without arguments, but {lifespan!r} does not allow that: {error}. "
            "Bind its arguments, for example with functools.partial."
        ) from None
    except ValueError:  # built-in functions have no signature
        return


def _is_being_decorated(function: Callable[..., Any]) -> bool:
    """Return whether a function at the top level of a module does not have its name in the module yet."""
    name = getattr(function, "__qualname__", "")
    module = sys.modules.get(getattr(function, "__module__", ""))
    return inspect.isfunction(function) and name.isidentifier() and not hasattr(module, name)


def _check_importable(value: Any) -> None:  # noqa: ANN401 a function, a lifespan or a stage type
    try:
        pickle.dumps(value)
    except Exception as error:
        called = _innermost(value) if callable(value) else value
        if called is not value and _is_importable(called):
            raise ConfigurationError(
                f"The function and the lifespan of a handler of style process are sent to another process, but "
                f"{value!r} has values that cannot be sent: {error}. Bind only values that can be pickled, and open "
                "resources in the lifespan of the handler."
            ) from error
        raise ConfigurationError(
            f"A handler of style process and its models must be importable by name in another process, but {value!r} "
            f"is not: {error}. Define it at the top level of a module."
        ) from error


def _is_importable(function: object) -> bool:
    try:
        pickle.dumps(function)
    except Exception:  # noqa: BLE001 it depends on what the function is
        return False
    return True
