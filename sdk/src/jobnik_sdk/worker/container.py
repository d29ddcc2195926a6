"""The container of a worker's process: what creates the worker, and what opens and closes the resources it needs."""

import asyncio
import inspect
from collections.abc import AsyncGenerator, Awaitable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any, Final, Protocol, cast

from jobnik_sdk.execution.handler import AnyHandler, Handler
from jobnik_sdk.model.arguments import check_instance, shown
from jobnik_sdk.observability.logging import RuntimeLogger
from jobnik_sdk.worker.settings import WorkerSettings
from jobnik_sdk.worker.worker import Worker

CLOSE_TIMEOUT: Final = timedelta(seconds=3)
"""How long closing everything may take, so that a stop does not wait forever for a connection that hangs."""

_log: Final = RuntimeLogger(__name__)


class Container(Protocol):
    """The parts of a worker's process; a container of dependency-injector has this shape."""

    def settings(self) -> WorkerSettings:
        """Read the settings; called once."""
        ...

    def worker(self) -> Worker | Awaitable[Worker] | AbstractAsyncContextManager[Worker]:
        """Create the worker; called once, on its event loop."""
        ...


class HandlerContainer:
    """The container of a process that has nothing but handlers, and the settings of every worker."""

    def __init__(self, handlers: Sequence[AnyHandler]) -> None:
        for handler in handlers:
            check_instance("Each handler that runs", handler, Handler)
        self._handlers = handlers
        self._settings: WorkerSettings | None = None

    def settings(self) -> WorkerSettings:
        """Read the settings, once."""
        self._settings = self._settings or WorkerSettings()
        return self._settings

    def worker(self) -> Worker:
        """Create the worker."""
        return Worker.from_settings(self.settings(), self._handlers)


def container_of(given: Any) -> Container:  # noqa: ANN401 anything, if it is not type-checked
    """Return a container, given one or the handlers.

    Raises:
        TypeError: it is neither.
    """
    if issubclass(type(given), Sequence) and not issubclass(type(given), str | bytes):
        return HandlerContainer(given)
    if not all(callable(getattr(given, method, None)) for method in ("settings", "worker")):
        wanted = "a list of handlers, or a container with the methods settings() and worker()"
        raise TypeError(f"container must be {wanted}, not {shown(given)}")
    return cast("Container", given)


@asynccontextmanager
async def opened(container: Container) -> AsyncGenerator[Worker]:
    """Open the resources of a container, yield its worker, and close the worker's client and the resources at the end.

    >>> async with opened(Container()) as worker:
    ...     await work_off(worker, job)

    A container of dependency-injector initializes its `Resource` providers first, and shuts them down at the end. In
    any other container, `worker()` can be an async context manager.

    Raises:
        Exception: whatever the container raises while it opens, which is logged. Errors while it closes are only
            logged.
    """
    container = container_of(container)
    stack = AsyncExitStack()
    try:
        stack.push_async_callback(_call, container, "shutdown_resources")
        with _logging_failure(container):
            await _call(container, "init_resources")
        created = container.worker()
        if isinstance(created, AbstractAsyncContextManager):
            with _logging_failure(container):
                worker = await stack.enter_async_context(created)
        else:
            worker = await created if inspect.isawaitable(created) else created
        stack.push_async_callback(worker.client.aclose)
        yield worker
    finally:
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT.total_seconds()):
                await stack.aclose()
        except TimeoutError:
            _log.warning("resources did not close in time, abandoned", timeout_seconds=CLOSE_TIMEOUT.total_seconds())
        except Exception:  # noqa: BLE001 the worker has ended, and the resources are the application's code
            _log.exception("resources failed to close")


@contextmanager
def _logging_failure(container: object) -> Generator[None]:
    try:
        yield
    except Exception as error:
        _log.error("resources failed to open", not_open=_not_open(container), reason=f"{type(error).__name__}: {error}")
        raise


def _not_open(container: Any) -> list[str]:  # noqa: ANN401 any container
    """Return the resources of a container of dependency-injector that are not open: those that failed, or come later.

    A resource of a nested container has no name here, so it is described by its provider.
    """
    if not hasattr(container, "resolve_provider_name"):
        return []
    names = {provider: name for name, provider in container.providers.items()}
    providers = [provider for provider in container.traverse() if getattr(provider, "initialized", True) is False]
    return sorted(names.get(provider, str(provider)) for provider in providers)


async def _call(container: object, method: str) -> None:
    """Call a method of a container of dependency-injector, which is asynchronous if one of its resources is."""
    function: Any = getattr(container, method, None)
    result = None if function is None else function()
    if inspect.isawaitable(result):
        await result
