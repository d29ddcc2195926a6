"""The worker's side of a handler's process."""

import asyncio
import ctypes
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from typing import Final

from jobnik_sdk.execution import supervisor
from jobnik_sdk.execution.processes import child
from jobnik_sdk.execution.processes.guarded import (
    UNKNOWN_EXIT_CODE,
    GuardedProcess,
    StartConditions,
    fill_standard_files,
)
from jobnik_sdk.execution.processes.messages import LogLine, Message, MessageDecoder, Ready, frame
from jobnik_sdk.execution.runner import RunningAttempt
from jobnik_sdk.observability.logging import RuntimeLogger, write_line

_READ_BYTES: Final = 262_144
_log: Final = RuntimeLogger(__name__)


class HandlerProcess:
    """The worker's side of a handler process; `pid` is its process id, once it is ready, and `index` its number.

    Args:
        name: The name of the process.
        setup: Its configuration.
        start_conditions: What it inherits.
        on_message: Called with each message that the process sends.
        on_exit: Called once, when the process has exited, with a description of its exit status.
    """

    def __init__(
        self,
        name: str,
        setup: child.Setup,
        start_conditions: StartConditions,
        on_message: "Callable[[HandlerProcess, Message], None]",
        on_exit: "Callable[[HandlerProcess, str], None]",
    ) -> None:
        self.pid: int | None = None
        self.index = setup.index
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
        self._is_readable = True
        self._write_buffer = b""
        self.task_number = 0
        self._task_sent = True
        fill_standard_files()
        # Spawned, not forked: a fork would copy the event loop's threads and locks in an arbitrary state.
        spawn = multiprocessing.get_context("spawn")
        # Shared memory, which outlives the process: it shows whether a process that died had started its task.
        self._started = spawn.RawValue(ctypes.c_ulonglong, 0)
        self._stream, child_stream = socket.socketpair()
        child_control, self._control = spawn.Pipe(duplex=False)
        self._stream.settimeout(0)
        child_stream.settimeout(None)  # the application may have set a default
        self._process = GuardedProcess(
            start_conditions, target=child.main, args=(child_stream, child_control, self._started, setup), name=name
        )
        with child_stream, child_control, _signals_blocked():
            self._process.start()
        self._guard_pid = self._process.pid or 0
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
            self._kill()

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
        if not self._is_readable:
            return False
        try:
            chunk = self._stream.recv(_READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:  # the process died before it read everything that was sent
            chunk = b""
        if not chunk:
            self._stop_reading()
            return False
        try:
            for message in self._decoder.feed(chunk):
                self._handle(message)
        except Exception:  # noqa: BLE001 the handler can write anything to the stream
            _log.exception("handler process sent an invalid message", pid=self.pid)
            self._stop_reading()
            return False
        return True

    def _handle(self, message: Message) -> None:
        match message:
            case Ready(pid):
                self.pid, self.ready = pid, True
                if not self._task_sent:
                    self._send_task()
            case LogLine(text):
                write_line(text)
            case _:
                self._on_message(self, message)

    def _stop_reading(self) -> None:
        """Kill the process, because it can no longer communicate."""
        self._is_readable = False
        self._loop.remove_reader(self._stream)
        self._kill()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):  # it has just ended
            self._send_signal(supervisor.KILL)
            self._send_signal(signal.SIGCONT)  # in case the guard is stopped

    def _send_signal(self, number: int) -> None:
        if sys.platform == "linux":  # the process id may have been reused, if a handler in a thread calls `os.wait`
            signal.pidfd_send_signal(self._exit_fd, number)
        else:
            os.kill(self._guard_pid, number)

    def _clean_up(self) -> None:
        while self._read():  # handle the remaining messages
            pass
        self._loop.remove_reader(self._exit_fd)
        self._loop.remove_reader(self._stream)
        self._loop.remove_writer(self._stream)
        os.close(self._exit_fd)
        self._process.join()
        exit_status = describe_exit(self._process.exitcode)
        self._process.close()
        self._stream.close()
        self._control.close()
        self.exited.set()
        self._on_exit(self, exit_status)


def _open_exit_fd(process: GuardedProcess) -> int:
    """Return a file descriptor that becomes readable when the process has exited."""
    if sys.platform == "linux":
        return os.pidfd_open(process.pid or 0)
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


def describe_exit(exit_code: int | None) -> str:
    """Return a description of an exit code; the name of its signal, if the process was killed by one."""
    if exit_code is None or exit_code == UNKNOWN_EXIT_CODE:
        return "unknown exit code"
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        return f"killed by {signal.Signals(-exit_code).name}"
    except ValueError:  # most real-time signals have no name
        return f"killed by signal {-exit_code}"
