"""A handler's process from the inside: it takes one task after the other from its worker."""

import ctypes
import gc
import os
import pickle
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Any, Final

from pydantic import BaseModel
from typing_extensions import override

from jobnik_sdk.execution import context as contexts
from jobnik_sdk.execution.calls import Gate, call, stack_of
from jobnik_sdk.execution.context import TaskContext
from jobnik_sdk.execution.outcomes import Failed, Outcome
from jobnik_sdk.execution.processes.messages import (
    LENGTH,
    Ended,
    Interrupted,
    Message,
    Noted,
    Ready,
    Unloadable,
    framed,
)
from jobnik_sdk.execution.progress import AttemptState, Checkpoint, Progress
from jobnik_sdk.observability import logging

INTERRUPT: Final = signal.SIGURG
"""What interrupts the main thread, also in a system call; a process that knows nothing of it ignores it."""

_PROGRESS_PAUSE: Final = 0.1
_SYSTEM_MEMORY: Final = Path("/proc/self/statm")


@dataclass(frozen=True, slots=True)
class Setup:
    """What a process is told when it begins; `handler` is the pickle of the function and the model of its result."""

    handler: bytes
    log_level: str | None
    recycle_after: int | None
    memory_limit: int | None


def main(stream: socket.socket, control: Connection, begun: ctypes.c_ulonglong, setup: Setup) -> None:
    """Work until the worker wants no more, or this process is to be replaced.

    `begun` is shared with the worker: the number of the last task that was taken, counted from 1.
    """
    # A group of its own: Ctrl-C in a terminal is for the worker to answer, and what the handler starts ends with it.
    os.setpgid(0, 0)
    # Not SIG_IGN, which the programs that a handler starts would inherit.
    for signalled in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signalled, _do_nothing)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    if setup.log_level is not None:
        logging.configure_logging(setup.log_level)
    worker = _Worker(stream, control)
    try:
        function, result = pickle.loads(setup.handler)  # noqa: S301 the worker wrote it
    except BaseException as error:  # noqa: BLE001 importing the handler may raise anything
        worker.tell(Unloadable(Failed.because(error)))
        return
    gc.freeze()  # what is loaded stays: a collection need not look at it
    worker.tell(Ready())
    for number in count(1):
        order = worker.next_order()
        if order is None:
            return
        begun.value = number
        outcome = _work_on(order, number, function, result, worker)
        leaving = _reason_to_leave(number, setup)
        worker.tell(Ended(outcome, leaving))
        if leaving is not None:
            return


def _work_on(
    order: bytes, number: int, function: Callable[..., Any], result: type[BaseModel] | None, worker: "_Worker"
) -> Outcome:
    try:
        data, context = pickle.loads(order)  # noqa: S301 the worker wrote it
    except Exception as error:  # noqa: BLE001 the models are the application's code
        return Failed.because(error)
    gate = _MainThread()
    notes = _SharedAttemptState(worker, number, gate)
    context = replace(context, notes=notes)
    contexts.enter(context)
    worker.begin(number, context, gate)
    outcome = call(function, result, data, context, gate)
    notes.tell_progress()
    return outcome


class _MainThread(Gate):
    """The call of a handler in this process, which a signal interrupts."""

    def __init__(self) -> None:
        self.context: TaskContext[Any] | None = None
        self._is_open = False

    @override
    def open(self) -> None:
        self._is_open = True
        if self.context is not None:
            self.context.cancellation.begin()
        self.interrupt()

    @override
    def shut(self) -> None:
        self._is_open = False

    def interrupt(self) -> None:
        """Raise `Cancelled` if it is due; in the main thread."""
        if self._is_open and self.context is not None:
            self.context.cancellation.raise_if_due()

    @contextmanager
    def put_off(self) -> Generator[None]:
        """Let what is done within a `with` block not be interrupted in the middle."""
        if not self._is_open or threading.current_thread() is not threading.main_thread():
            yield
            return
        self._is_open = False
        try:
            yield
        finally:
            self.open()


class _Worker:
    """The worker that this process belongs to."""

    def __init__(self, stream: socket.socket, control: Connection) -> None:
        self._stream = stream
        self._orders = stream.makefile("rb")
        self._control = control
        self._one_at_a_time = threading.Lock()
        self._number = 0
        self._context: TaskContext[Any] | None = None
        self._gate = _MainThread()
        self._asked_to_end: tuple[int, str] = (0, "")
        self._news: SimpleQueue[_SharedAttemptState] | None = None
        signal.signal(INTERRUPT, self._interrupt)
        threading.Thread(target=self._listen, name="jobnik control", daemon=True).start()

    def tell(self, message: Message) -> None:
        """Tell the worker something; a handler's main thread must not be interrupted in here."""
        pickled = pickle.dumps(message)
        with suppress(OSError), self._one_at_a_time:  # it is gone, and this process with it in a moment
            self._stream.sendall(framed(pickled))

    def tell_soon(self, notes: "_SharedAttemptState") -> None:
        """Let another thread tell what is newest, now or in a moment, so that a handler need not wait for it."""
        if self._news is None:
            self._news = SimpleQueue()
            threading.Thread(target=self._tell_news, args=(self._news,), name="jobnik progress", daemon=True).start()
        self._news.put(notes)

    def next_order(self) -> bytes | None:
        """Wait for the next task; None when there will be no more."""
        head = self._orders.read(LENGTH.size)
        if len(head) < LENGTH.size:
            return None
        return self._orders.read(LENGTH.unpack(head)[0])

    def begin(self, number: int, context: TaskContext[Any], gate: _MainThread) -> None:
        """Let the worker interrupt this attempt, the `number`th of this process."""
        gate.context = context
        self._context, self._gate = context, gate
        self._number = number
        # It may have been asked to end before it was taken from the stream.
        asked, reason = self._asked_to_end
        if asked == number:
            context.cancellation.request(reason)

    def _listen(self) -> None:
        main = threading.main_thread().ident or 0
        with suppress(EOFError, OSError):
            while True:
                number, reason = self._asked_to_end = self._control.recv()
                context = self._context
                if number == self._number and context is not None:
                    stack = stack_of(main)
                    context.cancellation.request(reason)
                    signal.pthread_kill(main, INTERRUPT)
                    self.tell(Interrupted(number, stack))
        # The worker has ended. What this handler has started ends as well.
        os.killpg(0, signal.SIGKILL)

    def _tell_news(self, news: "SimpleQueue[_SharedAttemptState]") -> None:
        while True:
            news.get().tell_progress()
            time.sleep(_PROGRESS_PAUSE)

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        self._gate.interrupt()


class _SharedAttemptState(AttemptState):
    """AttemptState that the worker gets to see: progress now and then, a checkpoint at once."""

    __slots__ = ("_gate", "_number", "_told", "_waiting", "_worker")

    def __init__(self, worker: _Worker, number: int, gate: _MainThread) -> None:
        super().__init__()
        self._worker = worker
        self._number = number
        self._gate = gate
        self._waiting = False
        self._told: Progress | None = None

    @override
    def record_progress(self, progress: Progress) -> None:
        # The handler does not write to the stream itself here: that may have to wait.
        self.progress = progress
        if not self._waiting:
            self._waiting = True
            with self._gate.put_off():
                self._worker.tell_soon(self)

    @override
    def record_checkpoint(self, checkpoint: Checkpoint) -> None:
        # Written before the handler goes on: what it does next may end the process.
        with self._gate.put_off():
            self.checkpoint = checkpoint
            self._worker.tell(Noted(self._number, checkpoint))

    def tell_progress(self) -> None:
        """Tell what was not told yet; a handler's main thread must not be interrupted in here."""
        self._waiting = False
        newest = self.progress
        if newest is not None and newest is not self._told:
            self._told = newest
            self._worker.tell(Noted(self._number, newest))


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    pass


def _reason_to_leave(tasks: int, setup: Setup) -> str | None:
    if setup.recycle_after is not None and tasks >= setup.recycle_after:
        return f"it has worked on {tasks} tasks"
    if setup.memory_limit is not None and (held := _memory()) > setup.memory_limit:
        return f"it holds {held} bytes of memory"
    return None


def _memory() -> int:
    """Return the bytes of memory that this process holds; its peak, where the system does not tell."""
    if _SYSTEM_MEMORY.exists():
        return int(_SYSTEM_MEMORY.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
