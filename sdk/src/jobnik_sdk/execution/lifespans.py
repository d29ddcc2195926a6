"""Opens and closes what the attempts of a handler share in the worker's process: the handler's lifespan."""

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext, suppress
from datetime import timedelta
from functools import partial
from typing import Any, Final

from typing_extensions import override

from jobnik_sdk.errors import ConfigurationError
from jobnik_sdk.execution.handler import AnyHandler, HandlerStyle
from jobnik_sdk.observability.logging import RuntimeLogger

CLOSE_TIMEOUT: Final = timedelta(seconds=3)
"""How long a lifespan may take to close, or to end when its opening is cancelled; see `service.process`."""

_log: Final = RuntimeLogger(__name__)


class Lifespan(ABC):
    """The lifespan of a handler, which is entered and left in the same asyncio task or thread, as some managers need.

    Args:
        handler: A handler with a lifespan.
    """

    def __init__(self, handler: AnyHandler) -> None:
        self._handler = handler
        self._error: BaseException | None = None

    @abstractmethod
    async def open(self) -> Any:  # noqa: ANN401 the value of any context manager
        """Enter the lifespan, and return its value.

        Raises:
            ConfigurationError: the lifespan does not return a context manager of the kind that the style needs.
            Exception: whatever the lifespan raises.
        """

    async def close(self) -> None:
        """Leave the lifespan; an error, or a lifespan that takes too long, is logged. Call it only after `open`."""
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT.total_seconds()):
                await self._leave()
        except TimeoutError:
            self._log_abandoned()
        except Exception:  # noqa: BLE001 the worker is stopping, and everything has been reported
            _log.exception("lifespan failed to close", stage_type=self._handler.stage_type.name)

    @abstractmethod
    async def _leave(self) -> None: ...

    def _log_abandoned(self) -> None:
        _log.warning("lifespan did not close in time, abandoned", stage_type=self._handler.stage_type.name)

    def _raise_error(self) -> None:
        """Raise what the context manager raised. An exception that would end the process becomes a RuntimeError."""
        error, self._error = self._error, None
        if isinstance(error, Exception):
            raise error
        if error is not None:
            raise RuntimeError(f"the lifespan raised {type(error).__name__}: {error}") from error


class AsyncLifespan(Lifespan):
    """The lifespan of a coroutine function: an async context manager on the worker's event loop."""

    def __init__(self, handler: AnyHandler) -> None:
        super().__init__(handler)
        self._leaving = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @override
    async def open(self) -> Any:
        opened: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._hold(opened))
        try:
            await asyncio.wait((self._task, opened), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._leaving.set()  # if it opens in spite of the cancellation
            self._task.cancel()
            _, unfinished = await asyncio.wait((self._task,), timeout=CLOSE_TIMEOUT.total_seconds())
            if unfinished:
                self._log_abandoned()
            raise
        self._raise_error()
        return opened.result()

    async def _hold(self, opened: asyncio.Future[Any]) -> None:
        try:
            async with create_manager(self._handler.lifespan, HandlerStyle.ASYNC) as value:
                opened.set_result(value)
                await self._leaving.wait()
        except BaseException as error:  # noqa: BLE001 asyncio would stop the event loop for some of them
            self._error = error

    @override
    async def _leave(self) -> None:
        self._leaving.set()
        if self._task is not None:
            try:
                await asyncio.wait((self._task,))
            finally:
                self._task.cancel()  # if it takes too long
        self._raise_error()


class ThreadLifespan(Lifespan):
    """The lifespan of a plain function that runs in threads: a plain context manager, in a thread of its own."""

    def __init__(self, handler: AnyHandler) -> None:
        super().__init__(handler)
        self._leaving = threading.Event()
        self._left = asyncio.Event()

    @override
    async def open(self) -> Any:
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[Any] = loop.create_future()

        def call(function: Callable[[], object]) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(function)

        def set_opened(value: object) -> None:
            if not opened.done():
                opened.set_result(value)

        def hold() -> None:
            try:
                with create_manager(self._handler.lifespan, HandlerStyle.THREAD) as value:
                    call(partial(set_opened, value))
                    self._leaving.wait()
            except BaseException as error:  # noqa: BLE001 a context manager may raise anything
                self._error = error
            call(self._left.set)

        # A daemon, because a lifespan that hangs must not keep the process from exiting.
        threading.Thread(target=hold, name=f"jobnik lifespan {self._handler.stage_type.name}", daemon=True).start()
        left = asyncio.ensure_future(self._left.wait())
        try:
            await asyncio.wait((left, opened), return_when=asyncio.FIRST_COMPLETED)
        finally:
            left.cancel()
            if not opened.done():
                self._leaving.set()
                opened.cancel()
        self._raise_error()
        return opened.result()

    @override
    async def _leave(self) -> None:
        self._leaving.set()
        await self._left.wait()
        self._raise_error()


def create_manager(lifespan: Callable[[], Any] | None, style: HandlerStyle) -> Any:  # noqa: ANN401 any context manager
    """Call the lifespan of a handler, and return its context manager; without a lifespan, one that does nothing.

    Raises:
        ConfigurationError: it is not a context manager of the kind that the style needs.
    """
    if lifespan is None:
        return nullcontext()
    manager = lifespan()
    is_async = style is HandlerStyle.ASYNC
    kind: type[Any] = AbstractAsyncContextManager if is_async else AbstractContextManager
    if not isinstance(manager, kind):
        wanted = "an async context manager" if is_async else "a plain context manager"
        raise ConfigurationError(
            f"The lifespan of a handler of style {style} must return {wanted}, but {lifespan!r} returned "
            f"{type(manager).__name__}."
        )
    return manager
