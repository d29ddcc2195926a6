"""A process that runs the worker of a contender."""

import asyncio
import signal
import sys
import time
from asyncio.subprocess import PIPE, STDOUT, Process
from collections import deque
from typing import Self

import psutil
from reference_manager.embedded.process import end_with_parent

TIMEOUT = 300.0
STOP_LIMIT = 30.0
"""Seconds."""


class WorkerProcess:
    """A worker that runs until the end of the ``async with`` block.

    Args:
        name: Key of the contender.
        address: Address of its store.
        every: The worker reports the start of its first task and of every `every`-th task.
    """

    def __init__(self, name: str, address: str, every: int) -> None:
        self._command = [sys.executable, "-m", "benchmarks.contenders", name, address, str(every)]
        self._output: deque[bytes] = deque(maxlen=50)

    async def __aenter__(self) -> Self:
        self.started = time.monotonic()
        self._process: Process = await asyncio.create_subprocess_exec(
            *self._command, stdout=PIPE, stderr=STDOUT, preexec_fn=end_with_parent(signal.SIGTERM)
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._process.returncode is None:
            self._process.terminate()
        try:
            # Keep reading, because a full pipe would block the process.
            await asyncio.wait_for(self._process.communicate(), STOP_LIMIT)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def handled(self) -> float:
        """Return the start time of the next reported task, on the monotonic clock in seconds.

        Raises:
            RuntimeError: The process ended or reported nothing for 300 s; the message quotes its output.
        """
        stdout = self._process.stdout
        assert stdout  # noqa: S101 - requested above
        try:
            async with asyncio.timeout(TIMEOUT):
                async for line in stdout:
                    if line.startswith(b"handled "):
                        return float(line.split()[2])
                    self._output.append(line)
        except TimeoutError:
            pass
        raise RuntimeError(f"{' '.join(self._command)} reported no task:\n{b''.join(self._output).decode()}")

    @property
    def usage(self) -> tuple[float, float]:
        """Resident memory in megabytes (10^6 bytes), and CPU time so far in seconds."""
        process = psutil.Process(self._process.pid)
        times = process.cpu_times()
        return process.memory_info().rss / 1e6, times.user + times.system
