"""A manager in its own process, for tests and benchmarks."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, ClassVar, Protocol, Self

from jobnik_devtools.environments import clean_environment
from reference_manager.embedded.process import end_with_parent

START_LIMIT = 60.0
STOP_LIMIT = 30.0
"""Seconds."""


class Process(Protocol):
    """A running program, with a part of the interface of `subprocess.Popen`."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None:
        """Return the exit code; None while it runs."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended, at most for `timeout` seconds, and return the exit code."""
        ...

    def send_signal(self, sig: int, /) -> None:
        """Send a signal, unless it has ended."""
        ...

    def terminate(self) -> None:
        """Send SIGTERM."""
        ...

    def kill(self) -> None:
        """Send SIGKILL."""
        ...


Start = Callable[[Sequence[str], Mapping[str, str], int], Process]
"""Starts ``jobnik-manager`` with arguments, all its environment variables, and a file descriptor for its output."""


def _start(arguments: Sequence[str], environment: Mapping[str, str], output: int) -> Process:
    return subprocess.Popen(
        [sys.executable, "-m", "reference_manager", *arguments],
        stdout=output,
        stderr=subprocess.STDOUT,
        env=environment,
        preexec_fn=end_with_parent(signal.SIGTERM),  # noqa: PLW1509 - the manager ends when the test run is killed
    )


class ManagerProcess:
    """``jobnik-manager serve`` on a free port. Ready when the ``with`` block begins, stopped when it ends.

    Args:
        arguments: Further arguments, such as ``--database-url``.
        log_file: The manager's output is also appended to this file.
        sources: A folder with the manager's package; None: that of this environment.

    Raises:
        RuntimeError: The manager ended before it was ready; the message quotes its output.
    """

    start: ClassVar[Start] = _start
    """Starts the managers of this environment; the tests replace it."""

    def __init__(self, *arguments: str | Path, log_file: Path | None = None, sources: Path | None = None) -> None:
        self._arguments = [str(argument) for argument in arguments]
        self._log_file = log_file or Path(os.devnull)
        self._sources = sources
        self._lines: deque[str] = deque(maxlen=200)
        self._ready = threading.Event()
        self.url = ""

    def __enter__(self) -> Self:
        reading, writing = os.pipe()
        arguments, environment = ["serve", "--port", "0", *self._arguments], clean_environment(keep_python=True)
        try:
            if self._sources:
                self.process = _start(arguments, environment | {"PYTHONPATH": str(self._sources)}, writing)
            else:
                self.process = ManagerProcess.start(arguments, environment, writing)
        finally:
            os.close(writing)
        # Read until the process ends: a full pipe would block it.
        self._reader = threading.Thread(target=self._read, args=(os.fdopen(reading),), daemon=True)
        self._reader.start()
        if not self._ready.wait(START_LIMIT) or not self.url:
            self.stop()
            raise RuntimeError(f"The manager did not start:\n{self.log}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def log(self) -> str:
        """The last lines of the manager's output."""
        return "".join(self._lines)

    def stop(self) -> int:
        """Stop the manager and return its exit code. Idempotent."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_LIMIT)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join()
        return self.process.wait()

    def _read(self, stream: IO[str]) -> None:
        with stream, self._log_file.open("a", buffering=1) as log_file:
            for line in stream:
                self._lines.append(line)
                log_file.write(line)
                if not self.url and '"manager is ready"' in line:
                    self.url = json.loads(line)["url"]
                    self._ready.set()
        self._ready.set()
