"""The main program of a handler's process: it receives tasks from its worker, and runs them one after the other."""

import contextvars
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
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Any, Final

from pydantic import BaseModel
from typing_extensions import override

from jobnik_sdk.execution.calls import InterruptWindow, call_function, format_stack
from jobnik_sdk.execution.context import TaskContext, bind_context
from jobnik_sdk.execution.handler import HandlerStyle
from jobnik_sdk.execution.lifespans import create_manager
from jobnik_sdk.execution.outcomes import Failed, Outcome
from jobnik_sdk.execution.processes.messages import (
    LENGTH,
    AttemptEnded,
    Interrupted,
    LogLine,
    Message,
    Ready,
    StartFailed,
    StateUpdate,
    frame,
)
from jobnik_sdk.execution.progress import AttemptState, Checkpoint, ProgressUpdate
from jobnik_sdk.observability import logging

INTERRUPT: Final = signal.SIGURG
"""Interrupts the main thread, even in a system call. Programs without a handler for this signal ignore it."""

INDEX_VARIABLE: Final = "JOBNIK_PROCESS_INDEX"
"""The environment variable with the number of a process among those of its handler, from 0."""

_PROGRESS_INTERVAL_SECONDS: Final = 0.1
_STATM: Final = Path("/proc/self/statm")
_log: Final = logging.RuntimeLogger(__name__)


@dataclass(frozen=True, slots=True)
class Setup:
    """The configuration of a process; `handler` is a pickle of the function, its result model and its lifespan."""

    name: str
    handler: bytes
    index: int
    log_level: str | None
    recycle_after: int | None
    memory_limit: int | None


def main(stream: socket.socket, control: Connection, started: ctypes.c_ulonglong, setup: Setup) -> None:
    """Run tasks until the worker closes the stream, or this process has to be replaced.

    Args:
        stream: Carries tasks from the worker, and messages to it.
        control: Carries interrupts from the worker.
        started: Shared with the worker: the number of the last task that was started, counted from 1.
        setup: The configuration of this process.
    """
    # Not SIG_IGN, because programs that a handler starts would inherit it.
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, _ignore_signal)
    # The worker blocks some signals while it starts this process, and a handler there may have blocked all.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    worker = _WorkerConnection(stream, control)
    if setup.log_level is not None:
        logging.forward_logs(setup.log_level, worker.send_log_line)
    os.environ[INDEX_VARIABLE] = str(setup.index)
    lifespan = ExitStack()
    try:
        function, result, open_lifespan = pickle.loads(setup.handler)  # noqa: S301 written by the worker
        value = lifespan.enter_context(create_manager(open_lifespan, HandlerStyle.PROCESS))
        handler = _Handler(function, () if open_lifespan is None else (value,), result)
    except BaseException as error:  # noqa: BLE001 importing a handler, or its lifespan, can raise anything
        worker.send(StartFailed(Failed.from_exception(error)))
        return
    variables = contextvars.copy_context()
    gc.freeze()  # imported modules stay in memory, so garbage collections can skip them
    worker.send(Ready(os.getpid()))
    with _closing(lifespan):
        for number in count(1):
            task = worker.receive_task()
            if task is None:
                return
            started.value = number
            # A copy for each task, so that no task sees what another has bound.
            outcome = variables.copy().run(_run_task, task, number, handler, worker)
            exit_reason = _exit_reason(number, setup)
            worker.send(AttemptEnded(outcome, exit_reason))
            if exit_reason is not None:
                return


@contextmanager
def _closing(lifespan: ExitStack) -> Generator[None]:
    """Leave the lifespan at the end of a `with` block; an error is logged, because nobody can handle it."""
    try:
        yield
    finally:
        try:
            lifespan.close()
        except BaseException:  # noqa: BLE001 the lifespan is the application's code
            _log.exception("lifespan failed to close")


@dataclass(frozen=True, slots=True)
class _Handler:
    """The function, its third argument if it has a lifespan, and the model of its result."""

    function: Callable[..., Any]
    resource: tuple[()] | tuple[Any]
    result: type[BaseModel] | None


def _run_task(task: bytes, number: int, handler: _Handler, worker: "_WorkerConnection") -> Outcome:
    try:
        data, context = pickle.loads(task)  # noqa: S301 written by the worker
    except Exception as error:  # noqa: BLE001 the models are the application's code
        return Failed.from_exception(error)
    window = _MainThreadWindow()
    state = _ForwardedState(worker, number, window)
    context = replace(context, state=state)
    bind_context(context)
    worker.start_attempt(number, context, window)
    outcome = call_function(handler.function, (data, context, *handler.resource), handler.result, window)
    state.send_progress()
    return outcome


class _MainThreadWindow(InterruptWindow):
    """The time in which a signal can interrupt the handler in the main thread."""

    def __init__(self) -> None:
        self.context: TaskContext[Any] | None = None
        self._is_open = False

    @override
    def open(self) -> None:
        self._is_open = True
        if self.context is not None:
            self.context.cancellation.bind_thread()
        self.interrupt()

    @override
    def close(self) -> None:
        self._is_open = False

    def interrupt(self) -> None:
        """Raise `Cancelled` if the attempt is cancelled, unless it has been raised. Call it in the main thread."""
        if self._is_open and self.context is not None:
            self.context.cancellation.raise_if_due()

    @contextmanager
    def suspended(self) -> Generator[None]:
        """Defer interrupts to the end of a `with` block."""
        if not self._is_open or threading.current_thread() is not threading.main_thread():
            yield
            return
        self._is_open = False
        try:
            yield
        finally:
            self.open()


class _WorkerConnection:
    """The connection to the worker that started this process."""

    def __init__(self, stream: socket.socket, control: Connection) -> None:
        self._stream = stream
        self._tasks = stream.makefile("rb")
        self._control = control
        self._send_lock = threading.Lock()
        self._task_number = 0
        self._context: TaskContext[Any] | None = None
        self._window = _MainThreadWindow()
        self._interrupt_request: tuple[int, str] = (0, "")
        self._unsent_states: SimpleQueue[_ForwardedState] | None = None
        signal.signal(INTERRUPT, self._on_signal)
        threading.Thread(target=self._receive_interrupts, name="jobnik control", daemon=True).start()

    def send(self, message: Message) -> None:
        """Send a message. The main thread must not be interruptible meanwhile."""
        pickled = pickle.dumps(message)
        with suppress(OSError), self._send_lock:  # the worker has ended, and this process will be killed
            self._stream.sendall(frame(pickled))

    def send_log_line(self, text: str) -> None:
        """Send a log line, in any thread."""
        with self._window.suspended():
            self.send(LogLine(text))

    def schedule_progress(self, state: "_ForwardedState") -> None:
        """Make another thread send the latest progress, at most ten times a second. It does not block the handler."""
        if self._unsent_states is None:
            self._unsent_states = SimpleQueue()
            target, states = self._send_progress, self._unsent_states
            threading.Thread(target=target, args=(states,), name="jobnik progress", daemon=True).start()
        self._unsent_states.put(state)

    def receive_task(self) -> bytes | None:
        """Wait for the next task; return None when the worker has closed the stream."""
        length = self._tasks.read(LENGTH.size)
        if len(length) < LENGTH.size:
            return None
        return self._tasks.read(LENGTH.unpack(length)[0])

    def start_attempt(self, number: int, context: TaskContext[Any], window: _MainThreadWindow) -> None:
        """Make interrupts apply to this attempt, at task `number` of this process."""
        window.context = context
        self._context, self._window = context, window
        self._task_number = number
        # The attempt may have been cancelled before its task was read from the stream.
        cancelled_number, reason = self._interrupt_request
        if cancelled_number == number:
            context.cancellation.request(reason)

    def _receive_interrupts(self) -> None:
        main_thread = threading.main_thread().ident or 0
        with suppress(EOFError, OSError):
            while True:
                number, reason = self._interrupt_request = self._control.recv()
                context = self._context
                if number == self._task_number and context is not None:
                    stack = format_stack(main_thread)
                    context.cancellation.request(reason)
                    signal.pthread_kill(main_thread, INTERRUPT)
                    self.send(Interrupted(number, stack))
        # The worker has ended. The guard kills this process, unless the guard was killed as well.
        os.killpg(0, signal.SIGKILL)

    def _send_progress(self, states: "SimpleQueue[_ForwardedState]") -> None:
        while True:
            states.get().send_progress()
            time.sleep(_PROGRESS_INTERVAL_SECONDS)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._window.interrupt()


class _ForwardedState(AttemptState):
    """The state of an attempt, forwarded to the worker: progress after a short delay, checkpoints immediately."""

    __slots__ = ("_scheduled", "_sent_progress", "_task_number", "_window", "_worker")

    def __init__(self, worker: _WorkerConnection, task_number: int, window: _MainThreadWindow) -> None:
        super().__init__()
        self._worker = worker
        self._task_number = task_number
        self._window = window
        self._scheduled = False
        self._sent_progress: ProgressUpdate | None = None

    @override
    def record_progress(self, progress: ProgressUpdate) -> None:
        # Sent by another thread, because writing to the stream can block.
        self.progress = progress
        if not self._scheduled:
            self._scheduled = True
            with self._window.suspended():
                self._worker.schedule_progress(self)

    @override
    def record_checkpoint(self, checkpoint: Checkpoint) -> None:
        # Sent before the handler continues, because the handler's next step may end the process.
        with self._window.suspended():
            self.checkpoint = checkpoint
            self._worker.send(StateUpdate(self._task_number, checkpoint))

    def send_progress(self) -> None:
        """Send the latest progress, unless it has been sent. The main thread must not be interruptible meanwhile."""
        self._scheduled = False
        latest = self.progress
        if latest is not None and latest is not self._sent_progress:
            self._sent_progress = latest
            self._worker.send(StateUpdate(self._task_number, latest))


def _ignore_signal(_number: int, _frame: FrameType | None) -> None:
    pass


def _exit_reason(tasks: int, setup: Setup) -> str | None:
    if setup.recycle_after is not None and tasks >= setup.recycle_after:
        return f"{tasks} tasks processed"
    if setup.memory_limit is not None and (held := _memory_bytes()) > setup.memory_limit:
        return f"{held} bytes of memory in use"
    return None


def _memory_bytes() -> int:
    """Return the memory that this process holds, in bytes; without /proc, the most that it has held."""
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
