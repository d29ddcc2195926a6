"""Handlers that are plain functions, in threads."""

import asyncio
import ctypes
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from queue import SimpleQueue
from typing import Any, Final

from pydantic import BaseModel
from typing_extensions import override

from jobnik_sdk.errors import Cancelled
from jobnik_sdk.execution.calls import Gate, call, stack_of
from jobnik_sdk.execution.cancellation import Cancellation
from jobnik_sdk.execution.handler import AnyHandler
from jobnik_sdk.execution.outcomes import Outcome
from jobnik_sdk.execution.runner import Attempt, Runner

_raise_in_thread: Final = ctypes.pythonapi.PyThreadState_SetAsyncExc
_raise_in_thread.argtypes = (ctypes.c_ulong, ctypes.py_object)
_raise_in_thread.restype = ctypes.c_int
_NO_EXCEPTION: Final[Any] = ctypes.py_object()


class ThreadRunner(Runner):
    """Runs each attempt in a thread; threads are started when first needed and used again."""

    def __init__(self, handler: AnyHandler, grace: timedelta) -> None:
        super().__init__(handler, grace)
        self._idle: list[_Thread] = []
        self._calls: dict[Attempt, _Call] = {}

    @override
    def _start(self, attempt: Attempt, data: BaseModel) -> None:
        thread = self._idle.pop() if self._idle else _Thread(f"jobnik {self._handler.stage_type.name}")
        loop = asyncio.get_running_loop()

        def answer(outcome: Outcome) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(self._came_back, thread, attempt, outcome)

        self._calls[attempt] = thread_call = _Call(thread, attempt.context.cancellation)
        function, result = self._handler.function, self._handler.stage_type.result
        thread.do(lambda: answer(attempt.around.run(call, function, result, data, attempt.context, thread_call)))

    def _came_back(self, thread: "_Thread", attempt: Attempt, outcome: Outcome) -> None:
        self._idle.append(thread)
        del self._calls[attempt]
        self._end(attempt, outcome)

    @override
    def _interrupt(self, attempt: Attempt) -> None:
        self._calls[attempt].interrupt()

    @override
    def _stack(self, attempt: Attempt) -> str:
        return self._calls[attempt].thread.stack()

    @override
    async def _give_back(self) -> None:
        for thread in self._idle:
            thread.end()
        self._idle.clear()


class _Thread:
    """A thread that does one thing after the other."""

    def __init__(self, name: str) -> None:
        self._orders: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        # A daemon, since nothing can end a handler that hangs, and it must not keep the whole process from outcome.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def ident(self) -> int:
        """What Python calls it."""
        return self._thread.ident or 0

    def do(self, order: Callable[[], None]) -> None:
        """Do this next."""
        self._orders.put(order)

    def stack(self) -> str:
        """Return where the thread is."""
        return stack_of(self.ident)

    def end(self) -> None:
        """Let the thread end, and wait for it: it has nothing to do."""
        self._orders.put(None)
        self._thread.join()

    def _work(self) -> None:
        while True:
            order = self._orders.get()
            if order is None:
                return
            order()
            del order  # it holds the task's data


class _Call(Gate):
    """The call of a handler in a thread, which the event loop's thread may interrupt.

    Python can raise an exception in another thread, but not "if it is still in this function". So the two tell each
    other what they are about to do, and then look: whichever comes second sees the other. There is no lock, since the
    exception may be raised between taking it and the `with` block that gives it back.
    """

    def __init__(self, thread: _Thread, cancellation: Cancellation) -> None:
        self.thread = thread
        self._cancellation = cancellation
        self._is_open = False
        self._interrupting = False
        self._interrupted = False

    @override
    def open(self) -> None:
        self._is_open = True
        self._cancellation.begin()
        self._cancellation.raise_if_requested()

    @override
    def shut(self) -> None:
        self._is_open = False
        if self._interrupting:
            while not self._interrupted:
                time.sleep(0)  # the other thread is between two lines
            _raise_in_thread(self.thread.ident, _NO_EXCEPTION)  # take it back if it was not raised yet

    def interrupt(self) -> None:
        """Raise `Cancelled` in the handler, at its next line of Python; once."""
        self._interrupting = True
        if self._is_open and self._cancellation.claim():
            _raise_in_thread(self.thread.ident, Cancelled)
        self._interrupted = True
