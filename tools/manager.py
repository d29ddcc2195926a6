"""A manager in its own process, for tests and benchmarks."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from reference_manager.embedded.process import end_with_parent

START_LIMIT = 30.0
STOP_LIMIT = 30.0
"""Seconds."""


class ManagerProcess:
    """``jobnik-manager serve`` on a free port. Ready when the ``with`` block begins, stopped when it ends.

    Args:
        arguments: Further arguments, such as ``--database-url``.
        log_file: The manager's output is also appended to this file.
        sources: A folder with the manager's package; None: that of this environment.

    Raises:
        RuntimeError: The manager ended before it was ready; the message quotes its output.
    """

    def __init__(self, *arguments: str | Path, log_file: Path | None = None, sources: Path | None = None) -> None:
        self._arguments = [str(argument) for argument in arguments]
        self._log_file = log_file or Path(os.devnull)
        self._environment = os.environ | ({"PYTHONPATH": str(sources)} if sources else {})
        self._lines: deque[str] = deque(maxlen=200)
        self._ready = threading.Event()
        self.url = ""

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "reference_manager", "serve", "--port", "0", *self._arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._environment,
            preexec_fn=end_with_parent(signal.SIGTERM),  # noqa: PLW1509 - the manager ends when the test run is killed
        )
        assert self.process.stdout  # noqa: S101 - requested above
        # Read until the process ends: a full pipe would block it.
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
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
        return self.process.returncode

    def _read(self, stream: IO[str]) -> None:
        with stream, self._log_file.open("a", buffering=1) as log_file:
            for line in stream:
                self._lines.append(line)
                log_file.write(line)
                if not self.url and '"manager is ready"' in line:
                    self.url = json.loads(line)["url"]
                    self._ready.set()
        self._ready.set()
