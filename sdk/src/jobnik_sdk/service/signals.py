"""Handles SIGTERM and SIGINT, and ends a process that does not stop in time.

Python runs its signal handlers in the main thread, which may be blocked in C code: by a driver that waits for a
database, for example. The watchdog, a thread, therefore learns about signals from the C code of Python itself, which
writes their numbers to a socket. Nothing can act while C code holds Python's lock.
"""

import os
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Final, Self

from jobnik_sdk.observability.logging import RuntimeLogger

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_CREDENTIALS: Final = struct.Struct("3i")
"""The process, the user and the group that have written to a socket."""
_log: Final = RuntimeLogger(__name__)


class StopSignals:
    """Handles SIGTERM and SIGINT within a `with` block. A second signal ends the process at once.

    Before `start_watchdog`, the first one also ends the process, with exit code 0: there is nothing to stop yet.

    Args:
        exit_now: Ends the process with an exit code.
    """

    def __init__(self, exit_now: Callable[[int], object]) -> None:
        self._exit_now = exit_now
        self._stop: Callable[[], object] | None = None
        self._handled = 0
        """How many signals the main thread has handled."""
        self._received = 0
        """How many signals the watchdog knows of."""
        self._is_graceful = False
        self._signalled = threading.Event()
        self._ended = threading.Event()
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)  # noqa: FBT003 declared so

    def __enter__(self) -> Self:
        # Not the event loop's own signal handling: a second signal must work even while the loop is blocked.
        self._previous_handlers = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        if sys.platform == "linux":
            # The kernel adds the process id of the writer, because a fork of this process writes its signals, too.
            self._reader.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            self._previous_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
            threading.Thread(target=self._receive, name="jobnik-signals", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._signalled.set()
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        if sys.platform == "linux" and (current := signal.set_wakeup_fd(self._previous_fd)) != self._writer.fileno():
            signal.set_wakeup_fd(current)  # the application has set another one meanwhile
        self._writer.close()

    @property
    def stop_requested(self) -> bool:
        """Whether a signal has arrived."""
        return bool(self._handled or self._received)

    def start_watchdog(self, timeout_seconds: float) -> None:
        """From now on, a signal lets the process stop gracefully. End it by force if it takes longer than this."""
        self._is_graceful = True
        watchdog = threading.Thread(target=self._enforce_timeout, args=(timeout_seconds,), name="jobnik-stop")
        watchdog.daemon = True
        watchdog.start()

    def call(self, stop: Callable[[], object]) -> None:
        """Call `stop` on a signal, or now if a signal has already arrived. It replaces the previous function.

        It may be called more than once, and from any thread.
        """
        self._stop = stop
        if self.stop_requested:
            stop()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self._handled += 1
        self._act(number)

    def _receive(self) -> None:
        """Count the signals of this process."""
        size = socket.CMSG_SPACE(_CREDENTIALS.size)
        with self._reader:
            while (message := self._reader.recvmsg(1, size))[0]:
                (number,), ancillary, *_ = message
                writers = [
                    _CREDENTIALS.unpack(data)[0] for _, kind, data in ancillary if kind == socket.SCM_CREDENTIALS
                ]
                if number in _SIGNALS and os.getpid() in writers:
                    self._received += 1
                    self._act(number)

    def _act(self, number: int) -> None:
        # Both threads count every signal, unless one of them cannot: each alone is right, and their sum is not.
        if max(self._handled, self._received) > 1:
            self._exit_now(128 + number)
        if not self._is_graceful:
            self._exit_now(0)
        if self._stop is not None:
            with suppress(RuntimeError):  # the event loop is closed
                self._stop()
        self._signalled.set()

    def _enforce_timeout(self, timeout_seconds: float) -> None:
        """End the process if it does not stop in time, for example because a handler blocks the event loop."""
        self._signalled.wait()
        if not self._ended.wait(timeout_seconds):
            _log.error("worker did not stop in time, exiting", timeout_seconds=timeout_seconds)
            self._exit_now(1)
