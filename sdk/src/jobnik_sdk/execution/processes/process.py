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
from datetime import timedelta
from multiprocessing import resource_tracker
from typing import Final

from jobnik_sdk.execution import supervisor
from jobnik_sdk.execution.processes import child
from jobnik_sdk.execution.processes.exits import describe_exit
from jobnik_sdk.execution.processes.fork_client import ForkServer
from jobnik_sdk.execution.processes.guarded import GuardedProcess, fill_standard_files
from jobnik_sdk.execution.processes.messages import LogLine, Message, MessageDecoder, Ready, frame
from jobnik_sdk.execution.runner import RunningAttempt
from jobnik_sdk.observability.logging import RuntimeLogger, write_line

_READ_BYTES: Final = 262_144
_FORK_TIMEOUT: Final = timedelta(seconds=30)
"""How long the fork server may take for a process, its own start included, before it is killed."""
_log: Final = RuntimeLogger(__name__)


class HandlerProcess:
    """The worker's side of a handler process; `pid` is its process id, once it is ready, and `index` its number.

    Args:
        setup: Its configuration.
        fork_server: Knows what the process inherits.
        on_message: Called with each message that the process sends.
        on_exit: Called once, when the process has exited, with a description of its exit status.
        forked: Whether the server forks it. Otherwise, a new interpreter is started, which takes more CPU time.
    """

    def __init__(
        self,
        setup: child.Setup,
        fork_server: ForkServer,
        on_message: "Callable[[HandlerProcess, Message], None]",
        on_exit: "Callable[[HandlerProcess, str], None]",
        *,
        forked: bool,
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
        self._kill_requested = False
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
        arguments = (child_stream, child_control, self._started, setup)
        process = spawn.Process(target=child.main, args=arguments, name=setup.name)
        try:
            with child_stream, child_control, _signals_blocked():
                self._process = GuardedProcess(process, fork_server.start_conditions, fork_server if forked else None)
        except BaseException:  # too many processes or open files, for example
            self._stream.close()
            self._control.close()
            raise
        self._loop.add_reader(self._stream, self._read)
        self._pidfd: int | None = None
        self._exit_fd: int | None = None
        self._fork_timer: asyncio.TimerHandle | None = None
        if self._process.pid is not None:
            self._watch(self._process.pid)
        else:
            self._loop.add_reader(self._process.sentinel, self._on_fork)
            self._fork_timer = self._loop.call_later(_FORK_TIMEOUT.total_seconds(), self._give_up, fork_server)

    @property
    def started(self) -> bool:
        """Whether the process has been started. A process that exits without it has not run any code."""
        return self._process.pid is not None

    @property
    def is_alive(self) -> bool:
        """Whether the process is running."""
        return not self.exited.is_set() and self._process.poll() is None

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

    def _give_up(self, fork_server: ForkServer) -> None:
        """Kill the fork server, which may be stopped, and exit without having been started."""
        fork_server.kill()
        self._loop.remove_reader(self._process.sentinel)
        self._clean_up()

    def _on_fork(self) -> None:
        """Watch the guard, which the fork server has created, unless the server has ended before that."""
        self._loop.remove_reader(self._process.sentinel)
        if self._fork_timer is not None:
            self._fork_timer.cancel()
        pid = self._process.read_pid()
        try:
            if pid is not None:
                self._watch(pid)
        except ProcessLookupError:  # it has exited already, and the application has waited for it
            pid = None
        if pid is None:
            self._clean_up()
        elif self._kill_requested:
            self._kill()

    def _watch(self, guard: int) -> None:
        """Wait for the exit of the process."""
        # The end of the stream does not show that the process has exited: its own children may hold it open. The
        # sentinel may be held open by what the application forks, so it is watched only if there is no other way.
        self._pidfd = _open_pidfd(guard)
        self._exit_fd = self._process.sentinel if self._pidfd is None else self._pidfd
        self._loop.add_reader(self._exit_fd, self._clean_up)

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
        self._kill_requested = True
        if self._exit_fd is not None and self._process.pid is not None:
            with suppress(ProcessLookupError):  # it has just ended
                for number in (supervisor.KILL, signal.SIGCONT):  # the guard may be stopped
                    _send_signal(self._pidfd, self._process.pid, number)

    def _clean_up(self) -> None:
        while self._read():  # handle the remaining messages
            pass
        self._loop.remove_reader(self._stream)
        self._loop.remove_writer(self._stream)
        if self._exit_fd is not None:
            self._loop.remove_reader(self._exit_fd)
        if self._pidfd is not None:
            os.close(self._pidfd)
        exit_status = describe_exit(self._process.poll(0))
        self._process.close()
        self._stream.close()
        self._control.close()
        self.exited.set()
        self._on_exit(self, exit_status)


def _open_pidfd(guard: int) -> int | None:
    """Return a file descriptor that becomes readable when the guard has exited; None if the system has none to give."""
    if sys.platform != "linux":
        return None
    try:
        return os.pidfd_open(guard)
    except ProcessLookupError:
        raise
    except OSError:  # too many files are open
        return None


def _send_signal(pidfd: int | None, guard: int, number: int) -> None:
    if sys.platform == "linux" and pidfd is not None:
        # The process id may have been reused, if a handler in a thread calls `os.wait`.
        signal.pidfd_send_signal(pidfd, number)
    else:
        os.kill(guard, number)


@contextmanager
def _signals_blocked() -> Generator[None]:
    """Block SIGINT and SIGTERM for a process started within a `with` block, so that Ctrl-C cannot end it too early."""
    resource_tracker.ensure_running()  # it starts together with the first process, and would unblock the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
