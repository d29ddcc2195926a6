"""Runs handlers that are plain functions in processes: if one dies, no other attempt is affected."""

import asyncio
import atexit
import ctypes
import multiprocessing
import os
import pickle
import signal
import socket
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from datetime import timedelta
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnProcess
from typing import Any, Final

import structlog
from pydantic import BaseModel
from typing_extensions import override

from jobnik_sdk.execution import outcomes
from jobnik_sdk.execution.handler import AnyHandler
from jobnik_sdk.execution.outcomes import Failed, Outcome
from jobnik_sdk.execution.processes import child
from jobnik_sdk.execution.processes.messages import (
    AttemptEnded,
    ImportFailed,
    Interrupted,
    Message,
    MessageDecoder,
    Ready,
    StateUpdate,
    frame,
)
from jobnik_sdk.execution.progress import ProgressUpdate
from jobnik_sdk.execution.runner import Runner, RunningAttempt
from jobnik_sdk.observability.logging import configured_level

_READ_BYTES: Final = 262_144
_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger(__name__)


class ProcessRunner(Runner):
    """Runs each attempt in a process. Processes are started on demand, and reused."""

    _starts_timeout_immediately = False  # the start of a process does not count towards the time limit

    def __init__(self, handler: AnyHandler, cancellation_timeout: timedelta) -> None:
        super().__init__(handler, cancellation_timeout)
        self._setup = child.Setup(
            pickle.dumps((handler.function, handler.stage_type.result)),
            configured_level(),
            handler.recycle_after,
            handler.memory_limit,
        )
        self._idle: list[_Process] = []
        self._processes: set[_Process] = set()
        self._process_by_attempt: dict[RunningAttempt, _Process] = {}
        atexit.register(self._kill_all)  # if this runner is not closed, the interpreter would wait for its processes

    @override
    def _start(self, attempt: RunningAttempt, data: BaseModel) -> None:
        self._assign(attempt, pickle.dumps((data, attempt.context)))

    def _assign(self, attempt: RunningAttempt, task: bytes) -> None:
        process = self._take_idle() or self._spawn()
        self._process_by_attempt[attempt] = process
        process.assign(attempt, task)

    @override
    def _interrupt(self, attempt: RunningAttempt) -> None:
        process = self._process_by_attempt[attempt]
        if process.withdraw():
            self._complete(process, outcomes.for_cancellation(attempt.context, ""))
        else:
            process.interrupt(attempt.context.cancellation.reason or "")

    @override
    def _stack(self, attempt: RunningAttempt) -> str:
        return self._process_by_attempt[attempt].stack

    @override
    def _kill(self, attempt: RunningAttempt) -> None:
        self._process_by_attempt[attempt].kill()

    @override
    async def _close(self) -> None:
        for process in self._processes:
            process.shut_down()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._cancellation_seconds):
                for process in list(self._processes):
                    await process.exited.wait()
        self._kill_all()
        for process in list(self._processes):
            await process.exited.wait()
        atexit.unregister(self._kill_all)

    def _take_idle(self) -> "_Process | None":
        while self._idle:
            process = self._idle.pop()
            if process.is_alive and not process.exiting:  # the event loop may not have noticed an exit yet
                return process
        return None

    def _spawn(self) -> "_Process":
        process = _Process(f"jobnik {self._handler.stage_type.name}", self._setup, self._on_message, self._on_exit)
        self._processes.add(process)
        return process

    def _on_message(self, process: "_Process", message: Message) -> None:
        attempt = process.attempt
        match message:
            case AttemptEnded():
                if message.exit_reason is not None:
                    _log.info("handler process replaced", pid=process.pid, reason=message.exit_reason)
                    process.shut_down()
                    asyncio.get_running_loop().call_later(self._cancellation_seconds, process.kill)
                self._complete(process, message.outcome)
            case ImportFailed():
                process.shut_down()
                self._complete(process, message.failure)
            case StateUpdate(number, update) if attempt is not None and number == process.task_number:
                if isinstance(update, ProgressUpdate):
                    attempt.context.state.record_progress(update)
                else:
                    attempt.context.state.record_checkpoint(update)
            case Interrupted(number, stack) if number == process.task_number:
                process.stack = stack
            case _:  # it concerns a previous task
                pass

    def _complete(self, process: "_Process", outcome: Outcome) -> None:
        attempt, process.attempt = process.attempt, None
        if not process.exiting:
            self._idle.append(process)
        if attempt is not None:
            del self._process_by_attempt[attempt]
            self._finish(attempt, outcome)

    def _on_exit(self, process: "_Process", exit_status: str) -> None:
        self._processes.discard(process)
        if process in self._idle:
            self._idle.remove(process)
        attempt = process.attempt
        if not process.exiting and process.idle:
            _log.warning("idle handler process died", pid=process.pid, exit_status=exit_status)
        process.exiting = True
        if attempt is None:
            return
        if attempt.context.cancellation.requested:
            self._complete(process, outcomes.for_cancellation(attempt.context, process.stack))
        elif process.idle:
            self._reassign(attempt, process.task)
        else:
            when = "while it ran the task" if process.ready else "before it received the task"
            message = f"The process of the handler died {when}: {exit_status}."
            self._complete(process, Failed("ProcessDiedError", message, ""))

    def _reassign(self, attempt: RunningAttempt, task: bytes) -> None:
        del self._process_by_attempt[attempt]
        try:
            self._assign(attempt, task)
        except OSError as error:  # the system allows no more processes
            self._finish(attempt, outcomes.for_exception(error, attempt.context))

    def _kill_all(self) -> None:
        for process in self._processes:
            process.kill()


class _Process:
    """The worker's side of a handler process.

    Args:
        name: The name of the process.
        setup: Its configuration.
        on_message: Called with each message that the process sends.
        on_exit: Called once, when the process has exited, with a description of its exit status.
    """

    def __init__(
        self,
        name: str,
        setup: child.Setup,
        on_message: "Callable[[_Process, Message], None]",
        on_exit: "Callable[[_Process, str], None]",
    ) -> None:
        self.attempt: RunningAttempt | None = None
        self.ready = False
        self.exiting = False
        self.exited = asyncio.Event()
        self.stack = ""
        self.task = b""
        self._on_message = on_message
        self._on_exit = on_exit
        self._loop = asyncio.get_running_loop()
        self._decoder = MessageDecoder()
        self._write_buffer = b""
        self.task_number = 0
        self._task_sent = True
        # Spawned, not forked: a fork would copy the event loop's threads and locks in an arbitrary state.
        spawn = multiprocessing.get_context("spawn")
        # Shared memory, which outlives the process: it shows whether a process that died had started its task.
        self._started = spawn.RawValue(ctypes.c_ulonglong, 0)
        self._stream, child_stream = socket.socketpair()
        child_control, self._control = spawn.Pipe(duplex=False)
        self._stream.settimeout(0)
        self._process = spawn.Process(
            target=child.main, args=(child_stream, child_control, self._started, setup), name=name
        )
        with child_stream, child_control, _signals_blocked():
            self._process.start()
        self.pid = self._process.pid or 0
        # The end of the stream does not show that the process has exited: its own children may hold it open.
        self._exit_fd = _open_exit_fd(self._process)
        self._loop.add_reader(self._stream, self._read)
        self._loop.add_reader(self._exit_fd, self._clean_up)

    @property
    def is_alive(self) -> bool:
        """Whether the process is running."""
        return not self.exited.is_set() and self._process.is_alive()

    @property
    def idle(self) -> bool:
        """Whether the process has no task, or has not started it yet."""
        return self.ready and (self.attempt is None or self._started.value < self.task_number)

    def assign(self, attempt: RunningAttempt, task: bytes) -> None:
        """Send a task to the process, as soon as the process is ready."""
        self.attempt = attempt
        self.stack = ""
        self.task = task
        self._task_sent = False
        if self.ready:
            self._send_task()

    def withdraw(self) -> bool:
        """Withdraw the task if it has not been sent yet; return whether it was withdrawn."""
        withdrawn, self._task_sent = not self._task_sent, True
        return withdrawn

    def interrupt(self, reason: str) -> None:
        """Raise `Cancelled` in the handler."""
        with suppress(OSError):  # the process has just died
            self._control.send((self.task_number, reason))

    def shut_down(self) -> None:
        """Let the process exit by itself: it receives no further tasks."""
        self.exiting = True
        with suppress(OSError):  # the process has just died
            self._stream.shutdown(socket.SHUT_WR)

    def kill(self) -> None:
        """Kill the process, and the programs that it started."""
        self.exiting = True
        if not self.exited.is_set():
            self._kill_group()

    def _send_task(self) -> None:
        self._task_sent = True
        self.task_number += 1
        if self.attempt is not None:
            self.attempt.start_timeout()
        self._write_buffer = frame(self.task)
        self._write()

    def _write(self) -> None:
        try:
            sent = self._stream.send(self._write_buffer)
        except BlockingIOError:
            sent = 0
        except OSError:  # the process has just died; `_read` handles that
            sent = len(self._write_buffer)
        self._write_buffer = self._write_buffer[sent:]
        if self._write_buffer:
            self._loop.add_writer(self._stream, self._write)
        else:
            self._loop.remove_writer(self._stream)

    def _read(self) -> bool:
        """Read and handle messages; return whether there may be more."""
        try:
            chunk = self._stream.recv(_READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:  # the process died before it read everything that was sent
            chunk = b""
        if not chunk:
            self._loop.remove_reader(self._stream)
            self._kill_group()  # a process that only closed the stream is of no use either
            return False
        for message in self._decoder.feed(chunk):
            if isinstance(message, Ready):
                self._set_ready()
            else:
                self._on_message(self, message)
        return True

    def _set_ready(self) -> None:
        self.ready = True
        if not self._task_sent:
            self._send_task()

    def _kill_group(self) -> None:
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:  # it has just started, and does not have its own process group yet
            self._process.kill()

    def _clean_up(self) -> None:
        while self._read():  # handle the remaining messages
            pass
        self._kill_group()  # programs that it started may still be running
        self._loop.remove_reader(self._exit_fd)
        self._loop.remove_reader(self._stream)
        self._loop.remove_writer(self._stream)
        os.close(self._exit_fd)
        self._process.join()
        exit_status = _describe_exit(self._process.exitcode)
        self._process.close()
        self._stream.close()
        self._control.close()
        self.exited.set()
        self._on_exit(self, exit_status)


def _open_exit_fd(process: SpawnProcess) -> int:
    """Return a file descriptor that becomes readable when the process has exited."""
    if sys.platform == "linux":
        return os.pidfd_open(process.pid or 0)
    # On other systems it is a pipe, which children of the process hold open as well.
    return os.dup(process.sentinel)


@contextmanager
def _signals_blocked() -> Generator[None]:
    """Block SIGINT and SIGTERM for a process started within a `with` block, so that Ctrl-C cannot end it too early."""
    resource_tracker.ensure_running()  # it starts together with the first process, and would unblock the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _describe_exit(exit_code: Any) -> str:  # noqa: ANN401 multiprocessing declares int or None
    if isinstance(exit_code, int) and exit_code < 0:
        return f"killed by {signal.Signals(-exit_code).name}"
    return f"exit code {exit_code}"
