"""An event loop in a background thread, for callers without one of their own."""

import asyncio
import atexit
import inspect
import os
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable, Iterator
from functools import partial
from itertools import count, islice
from queue import SimpleQueue
from typing import Any, Final, Generic, TypeVar, cast

from jobnik_sdk.errors import ConfigurationError
from jobnik_sdk.model.arguments import check_callable

T = TypeVar("T")

_STOP_SECONDS: Final = 2.0
_CANCEL_SECONDS: Final = 1.0
_END: Final = object()


class Caller:
    """The thread that waits for a call. It runs the functions that the call needs from it in the meantime.

    Functions and iterables of the application therefore run where the application expects: in the thread that its
    database connections belong to, for example.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    async def run(self, function: Callable[[], T]) -> T:
        """Run a function in the waiting thread, and return its value or raise its exception."""
        loop = asyncio.get_running_loop()
        called: asyncio.Future[tuple[T, None] | tuple[None, Exception]] = loop.create_future()

        def settle(outcome: tuple[T, None] | tuple[None, Exception]) -> None:
            if not called.done():  # cancelled
                called.set_result(outcome)

        def call() -> None:
            outcome: tuple[T, None] | tuple[None, Exception]
            try:
                outcome = (function(), None)
            except Exception as error:  # noqa: BLE001 raised where the value is awaited
                outcome = (None, error)
            loop.call_soon_threadsafe(settle, outcome)

        self._calls.put(call)
        value, error = await called
        if error is not None:
            raise error
        return cast("T", value)

    async def iterate(self, iterable: Iterable[T], chunk: int) -> AsyncGenerator[T]:
        """Yield the items of an iterable, which the waiting thread iterates over, this many at a time."""
        items = await self.run(lambda: iter(iterable))
        while True:
            read = await self.run(lambda: _Chunk(items, chunk))
            for item in read.items:
                yield item
            if read.error is not None:
                raise read.error
            if len(read.items) < chunk:
                return

    def callback(self, function: Callable[[T], object]) -> Callable[[T], Coroutine[Any, Any, object]]:
        """Return a coroutine function that runs this function in the waiting thread."""
        check_callable("on_progress", function)
        if inspect.iscoroutinefunction(function):
            raise ConfigurationError(
                f"A callback of a SyncProducer must be a plain function (def), not a coroutine function: {function!r}."
            )
        return lambda value: self.run(partial(function, value))

    def serve(self) -> None:
        """Run functions until `release` is called."""
        while (call := self._calls.get()) is not None:
            call()

    def release(self) -> None:
        """End `serve`."""
        self._calls.put(None)


class _Chunk(Generic[T]):
    """The next items of an iterator, and the exception that ended it."""

    def __init__(self, iterator: Iterator[T], size: int) -> None:
        self.items: list[T] = []
        self.error: Exception | None = None
        try:
            self.items.extend(islice(iterator, size))
        except Exception as error:  # noqa: BLE001 raised after these items
            self.error = error


class _BackgroundLoop:
    """An event loop in a daemon thread, which starts with the first call and ends with the process.

    There is no lock: a signal handler may call a producer at any line, and would wait for a lock of its own thread.
    """

    def __init__(self) -> None:
        self.loop: Final = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="jobnik producer", daemon=True)
        self._starts = count()
        self._scheduled: set[asyncio.Task[None]] = set()

    @property
    def is_running(self) -> bool:
        return self._thread.ident is not None and not self.loop.is_closed()

    @property
    def runs_here(self) -> bool:
        return threading.current_thread() is self._thread

    def schedule(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._scheduled.add(task)
        task.add_done_callback(self._scheduled.discard)

    def run(self, coroutine: Coroutine[Any, Any, T], caller: Caller) -> T:
        tasks: list[asyncio.Task[T]] = []
        loop = self.loop
        if next(self._starts) == 0:
            self._thread.start()

        def start() -> None:
            tasks.append(loop.create_task(coroutine))
            tasks[0].add_done_callback(release)

        def release(_task: object) -> None:
            if not self._stopping.is_set():  # otherwise this is the exit of the process, which ends waiting threads
                caller.release()

        loop.call_soon_threadsafe(start)  # in a copy of the current context, which contains the trace
        try:
            caller.serve()
        except BaseException:
            ended = threading.Event()
            loop.call_soon_threadsafe(_cancel, tasks, ended)
            ended.wait(_CANCEL_SECONDS)
            raise
        return tasks[0].result()

    def stop(self) -> None:
        """Cancel what still runs, close all connections, and end the thread; give up after 2 s."""
        if self.is_running:
            self.loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        await self._stopping.wait()


loops: Final[dict[int, _BackgroundLoop]] = {}
"""The loop of this process."""

_inherited: Final[list[_BackgroundLoop]] = []
"""The loops of processes that this one was forked from, without their threads. Freeing one would disturb its owner."""


def _leave_to_parent() -> None:
    _inherited.extend(loops.values())
    loops.clear()


os.register_at_fork(after_in_child=_leave_to_parent)


def run(coroutine: Coroutine[Any, Any, T], caller: Caller | None = None) -> T:
    """Run a coroutine on the background loop of this process, block until it is done, and return its value.

    An exception in this thread, such as a `KeyboardInterrupt`, cancels the coroutine.

    Args:
        coroutine: The coroutine.
        caller: Runs functions in this thread meanwhile; None: there are none.

    Raises:
        ConfigurationError: an event loop runs in this thread, which the call would block, or the interpreter is
            shutting down.
    """
    if sys.is_finalizing():
        coroutine.close()
        raise ConfigurationError("A SyncProducer cannot be used any more: the interpreter is shutting down.")
    if _loop_runs_here():
        coroutine.close()
        raise ConfigurationError(
            "A SyncProducer would block the event loop that runs in this thread. Use a Producer with await, or call "
            "the SyncProducer in another thread: await asyncio.to_thread(...)."
        )
    return _own_loop().run(coroutine, caller or Caller())


def iterate(iterator: AsyncGenerator[T]) -> Generator[T]:
    """Yield the items of an asynchronous iterator, which is closed at the end, or when the caller stops earlier."""
    try:
        while (item := run(_next(iterator))) is not _END:
            yield item
    finally:
        finish(iterator.aclose())


def finish(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that closes something; unlike `run`, also in the thread of an event loop, and at the exit."""
    loop = _own_loop()
    if not loop.is_running or sys.is_finalizing():
        coroutine.close()
    elif loop.runs_here:  # a garbage collection closes an iterator there, for example
        loop.schedule(coroutine)
    else:
        loop.run(coroutine, Caller())


def _loop_runs_here() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _own_loop() -> _BackgroundLoop:
    process = os.getpid()
    known = loops.get(process)
    if known is not None and known.loop.is_closed():
        del loops[process]
        known = None
    if known is not None:
        return known
    new = _BackgroundLoop()
    chosen = loops.setdefault(process, new)
    if chosen is not new:  # another thread was faster
        new.loop.close()
    return chosen


async def _next(iterator: AsyncGenerator[T]) -> Any:  # noqa: ANN401 an item or _END
    return await anext(iterator, _END)


def _cancel(tasks: list[asyncio.Task[Any]], ended: threading.Event) -> None:
    def note_end(task: asyncio.Task[Any]) -> None:
        if not task.cancelled():
            task.exception()  # otherwise asyncio logs that nobody has read it
        ended.set()

    for task in tasks:
        task.add_done_callback(note_end)
        task.cancel()


@atexit.register
def stop() -> None:
    """End the background loop of this process, which closes all connections. A later call starts another one."""
    if loop := loops.get(os.getpid()):
        loop.stop()
