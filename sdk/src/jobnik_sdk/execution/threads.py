"""Runs handlers that are plain functions, in threads."""

import asyncio
import ctypes
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from queue import SimpleQueue
from typing import Any, Final

from pydantic import BaseModel
from typing_extensions import override

from jobnik_sdk.errors import Cancelled
from jobnik_sdk.execution import outcomes
from jobnik_sdk.execution.calls import InterruptWindow, call_function, format_stack
from jobnik_sdk.execution.cancellation import Cancellation
from jobnik_sdk.execution.handler import AnyHandler
from jobnik_sdk.execution.lifespans import Lifespan, ThreadLifespan
from jobnik_sdk.execution.outcomes import Outcome
from jobnik_sdk.execution.runner import Runner, RunningAttempt

_raise_in_thread: Final = ctypes.pythonapi.PyThreadState_SetAsyncExc
_raise_in_thread.argtypes = (ctypes.c_ulong, ctypes.py_object)
_raise_in_thread.restype = ctypes.c_int
_NO_EXCEPTION: Final[Any] = ctypes.py_object()


class ThreadRunner(Runner):
    """Runs each attempt in a thread. Threads are started on demand, and reused."""

    def __init__(self, handler: AnyHandler, cancellation_timeout: timedelta) -> None:
        super().__init__(handler, cancellation_timeout)
        self._idle: list[_Thread] = []
        self._calls: dict[RunningAttempt, _ThreadCall] = {}

    @override
    def _new_lifespan(self) -> Lifespan:
        return ThreadLifespan(self._handler)

    @override
    def _start(self, attempt: RunningAttempt, data: BaseModel) -> None:
        thread = self._idle.pop() if self._idle else _Thread(f"jobnik {self._handler.stage_type.name}")
        loop = asyncio.get_running_loop()

        def return_outcome(outcome: Outcome) -> None:
            with suppress(RuntimeError):  # the loop is closed, so the outcome is no longer needed
                loop.call_soon_threadsafe(self._on_return, thread, attempt, outcome)

        self._calls[attempt] = call = _ThreadCall(thread, attempt.context.cancellation)
        arguments = (data, attempt.context, *self._resource)
        function, result = self._handler.function, self._handler.stage_type.result

        def run() -> None:
            try:
                outcome = attempt.variables.run(call_function, function, arguments, result, call)
            except BaseException as error:  # noqa: BLE001 a trace function, or a library that raises in this thread
                outcome = outcomes.for_exception(error, attempt.context)
            return_outcome(outcome)

        thread.submit(run)

    def _on_return(self, thread: "_Thread", attempt: RunningAttempt, outcome: Outcome) -> None:
        self._idle.append(thread)
        del self._calls[attempt]
        self._finish(attempt, outcome)

    @override
    def _interrupt(self, attempt: RunningAttempt) -> None:
        self._calls[attempt].interrupt()

    @override
    def _stack(self, attempt: RunningAttempt) -> str:
        return self._calls[attempt].thread.stack()

    @override
    async def _close(self) -> None:
        for thread in self._idle:
            thread.stop()
        self._idle.clear()


class _Thread:
    """A thread that runs callables one after the other."""

    def __init__(self, name: str) -> None:
        self._callables: deque[Callable[[], None] | None] = deque()
        self._submitted: SimpleQueue[None] = SimpleQueue()
        # A daemon thread, because a handler that hangs cannot be stopped, and must not keep the process from exiting.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def ident(self) -> int:
        """Python's identifier of the thread."""
        return self._thread.ident or 0

    def submit(self, function: Callable[[], None]) -> None:
        """Run `function` in the thread."""
        self._callables.append(function)
        self._submitted.put(None)

    def stack(self) -> str:
        """Return the current stack of the thread."""
        return format_stack(self.ident)

    def stop(self) -> None:
        """Stop the idle thread, and wait until it has ended."""
        self._callables.append(None)
        self._submitted.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            # Libraries that limit the time of a call raise an exception in its thread, which may arrive too late. It
            # must neither end this thread nor, while it waits, lose the next callable.
            with suppress(BaseException):
                self._submitted.get()
            with suppress(BaseException):
                function = self._callables.popleft()
                if function is None:
                    return
                function()
                del function  # it references the data of the task


class _ThreadCall(InterruptWindow):
    """The call of a handler in a thread, which the event loop's thread can interrupt.

    Python can raise an exception in another thread, but not on the condition that a certain function is still running.
    So each thread first announces what it is about to do and then reads the other's announcement: the second of them
    sees the first. A lock would not work: the exception can be raised after the lock is taken and before the `with`
    block that releases it is entered.
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
        self._cancellation.bind_thread()
        self._cancellation.raise_if_requested()

    @override
    def close(self) -> None:
        self._is_open = False
        if self._interrupting:
            while not self._interrupted:
                time.sleep(0)  # the other thread is in the middle of `interrupt`
            _raise_in_thread(self.thread.ident, _NO_EXCEPTION)  # withdraw the exception if it has not been raised yet

    def interrupt(self) -> None:
        """Raise `Cancelled` in the handler at its next line of Python, unless it has already been raised."""
        self._interrupting = True
        if self._is_open and self._cancellation.claim_raise():
            _raise_in_thread(self.thread.ident, Cancelled)
        self._interrupted = True
