"""A worker process that is hard to stop: its first argument names its stage type, its second what hangs in it."""

import asyncio
import ctypes
import multiprocessing
import sys
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from typing import Any, Final

from jobnik_sdk import Handler, HandlerStyle, StageType, TaskContext, Worker, WorkerSettings, run
from jobnik_sdk.execution.handler import AnyHandler
from pydantic import BaseModel
from structlog import get_logger

HANG_SECONDS: Final = 1_000
CONCURRENCY: Final = 40
"""More slots than `asyncio.to_thread` has threads on a small machine."""
_log: Final = get_logger(__name__)


class Nothing(BaseModel):
    """The data of a task."""


async def _ignore_cancellation() -> None:
    _log.info("hanging")
    while True:
        try:
            await asyncio.sleep(HANG_SECONDS)
        except asyncio.CancelledError:
            continue


def _hang() -> None:
    _log.info("hanging")
    while True:
        time.sleep(HANG_SECONDS)


def _hang_in_c() -> None:
    """Wait forever in C code that releases Python's lock, and that no signal interrupts."""
    _log.info("hanging")
    _lock_twice()


def _lock_twice() -> None:
    mutex, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)


@asynccontextmanager
async def hang_open() -> AsyncGenerator[None]:
    """Ignore cancellation while it opens."""
    await _ignore_cancellation()
    yield


@asynccontextmanager
async def hang_closed() -> AsyncGenerator[None]:
    """Ignore cancellation while it closes."""
    yield
    await _ignore_cancellation()


@asynccontextmanager
async def block_open() -> AsyncGenerator[None]:
    """Block the event loop in C code."""
    _hang_in_c()
    yield


@contextmanager
def plain_hang_open() -> Generator[None]:
    """Hang while it opens."""
    _hang()
    yield


@contextmanager
def plain_hang_closed() -> Generator[None]:
    """Hang while it closes."""
    yield
    _hang()


async def run_with_resource(_task: Nothing, context: TaskContext, _resource: None) -> None:
    """Run until cancelled."""
    await run_async(_task, context)


def run_plainly_with_resource(_task: Nothing, context: TaskContext, _resource: None) -> None:
    """Run until cancelled."""
    run_plainly(_task, context)


async def run_async(_task: Nothing, context: TaskContext) -> None:
    """Run until cancelled."""
    context.logger.info("running")
    await asyncio.sleep(HANG_SECONDS)


def run_plainly(_task: Nothing, context: TaskContext) -> None:
    """Run until cancelled."""
    context.logger.info("running")
    time.sleep(HANG_SECONDS)


async def ignore_cancellation(_task: Nothing, context: TaskContext) -> None:
    """Ignore every cancellation."""
    context.logger.info("running")
    await _ignore_cancellation()


async def block(_task: Nothing, context: TaskContext) -> None:
    """Block the event loop in C code."""
    context.logger.info("running")
    _hang_in_c()


async def hang_in_threads(_task: Nothing, context: TaskContext) -> None:
    """Occupy a thread of `asyncio.to_thread`."""
    context.logger.info("running")
    await asyncio.to_thread(time.sleep, HANG_SECONDS)


def leave_a_process(_task: Nothing, context: TaskContext) -> None:
    """Start a process, for which Python waits at its end."""
    multiprocessing.get_context("spawn").Process(target=time.sleep, args=(HANG_SECONDS,)).start()
    context.logger.info("running")
    time.sleep(HANG_SECONDS)


_RESOURCES: Final[dict[str, Callable[[], AbstractAsyncContextManager[None]]]] = {
    "resource that does not open": hang_open,
    "resource that does not close": hang_closed,
    "resource that blocks": block_open,
}
_SETTINGS: Final[dict[str, Callable[[], None]]] = {
    "settings that hang": lambda: time.sleep(HANG_SECONDS),
    "settings that block": _lock_twice,
}
_THREAD: Final = {"style": HandlerStyle.THREAD}
_PROCESS: Final = {"style": HandlerStyle.PROCESS}
_HANDLERS: Final[dict[str, tuple[Any, dict[str, Any]]]] = {
    "async lifespan that does not open": (run_with_resource, {"lifespan": hang_open}),
    "async lifespan that does not close": (run_with_resource, {"lifespan": hang_closed}),
    "thread lifespan that does not open": (run_plainly_with_resource, _THREAD | {"lifespan": plain_hang_open}),
    "thread lifespan that does not close": (run_plainly_with_resource, _THREAD | {"lifespan": plain_hang_closed}),
    "process lifespan that does not open": (run_plainly_with_resource, _PROCESS | {"lifespan": plain_hang_open}),
    "process lifespan that does not close": (run_plainly_with_resource, _PROCESS | {"lifespan": plain_hang_closed}),
    "handler that ignores cancellation": (ignore_cancellation, {}),
    "handler that blocks": (block, {}),
    "handler that occupies all threads": (hang_in_threads, {"concurrency": CONCURRENCY}),
    "handler that leaves a process": (leave_a_process, _THREAD),
}


class Container:
    """The parts of the process."""

    def __init__(self, name: str, fault: str) -> None:
        self._stage_type = StageType(name, task=Nothing)
        self._fault = fault
        self._settings = WorkerSettings()

    def settings(self) -> WorkerSettings:
        """Return the settings."""
        if self._fault in _SETTINGS:
            sys.stdout.write('{"event": "hanging"}\n')
            sys.stdout.flush()
            _SETTINGS[self._fault]()
        return self._settings

    @asynccontextmanager
    async def worker(self) -> AsyncGenerator[Worker]:
        """Open the resource, and create the worker."""
        async with _RESOURCES.get(self._fault, nullcontext)():
            yield Worker.from_settings(self._settings, [self._handler()])

    def _handler(self) -> AnyHandler:
        function, options = _HANDLERS.get(self._fault, (run_async, {}))
        return Handler(self._stage_type, function, **options)


if __name__ == "__main__":
    raise SystemExit(run(Container(*sys.argv[1:])))
