"""A contender's worker as a process, watched from here."""

import asyncio
import signal
import sys
import time
from asyncio.subprocess import PIPE, STDOUT, Process
from collections import deque
from typing import Self

import psutil
from reference_manager.embedded.process import end_with_parent

PATIENCE = 300.0
STOP_LIMIT = 30.0
"""Seconds."""


class WorkerProcess:
    """A worker at work until the end of the ``async with`` block.

    Args:
        name: Which contender's.
        address: Of its store.
        every: After how many tasks it says so; it tells of the first in any case.
    """

    def __init__(self, name: str, address: str, every: int) -> None:
        self._command = [sys.executable, "-m", "benchmarks.contenders", name, address, str(every)]
        self._said: deque[bytes] = deque(maxlen=50)

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
            # Read on, since a full pipe would stop it.
            await asyncio.wait_for(self._process.communicate(), STOP_LIMIT)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def handled(self) -> float:
        """When the next task began that it tells of.

        Raises:
            RuntimeError: It ended, or told nothing for minutes; the message quotes what it said.
        """
        output = self._process.stdout
        assert output  # noqa: S101 - it was asked for
        try:
            async with asyncio.timeout(PATIENCE):
                async for line in output:
                    if line.startswith(b"handled "):
                        return float(line.split()[2])
                    self._said.append(line)
        except TimeoutError:
            pass
        raise RuntimeError(f"{' '.join(self._command)} handled nothing:\n{b''.join(self._said).decode()}")

    @property
    def usage(self) -> tuple[float, float]:
        """Megabytes (10^6 bytes) in memory, and seconds of processor time so far."""
        process = psutil.Process(self._process.pid)
        times = process.cpu_times()
        return process.memory_info().rss / 1e6, times.user + times.system
