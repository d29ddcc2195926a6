"""Child programs: their output goes to the screen, and none of them outlives this process."""

import asyncio
import ctypes
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, suppress
from functools import partial
from pathlib import Path
from typing import Final

from jobnik_devtools.dev.screen import Screen
from jobnik_devtools.environments import clean_environment

_CHUNK: Final = 65_536
_OUTPUT_TIMEOUT: Final = 1.0
"""Seconds for the rest of a program's output after its end: a process that it left behind may keep the pipe open."""
_PR_SET_PDEATHSIG: Final = 1


def terminate_with_parent(by: signal.Signals, parent: int) -> None:
    """Let the system send this process a signal when its parent ends, even after `kill -9`. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, by)
        if os.getppid() != parent:
            os.kill(os.getpid(), by)


class Programs:
    """Starts programs in a folder, and stops them."""

    def __init__(self, folder: Path, screen: Screen) -> None:
        self._folder = folder
        self._screen = screen
        self._running: dict[Process, signal.Signals] = {}

    @asynccontextmanager
    async def running(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        urgent_signal: signal.Signals = signal.SIGKILL,
    ) -> AsyncGenerator[Process]:
        """Run a program for the length of a block. At its end, send SIGTERM to the program and wait until it has ended.

        Args:
            name: The name of the program on the screen.
            command: The program and its arguments.
            environment: Variables in addition to those of this process.
            urgent_signal: The signal that `stop_now` sends to the program and its child processes.
        """
        # Not a pipe of asyncio: its `wait` waits until every process that inherited the other end has closed it.
        read_end, write_end = os.pipe()
        showing = asyncio.create_task(self._show(name, read_end))
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=self._folder,
                env=clean_environment(keep_python=True) | {"PYTHONUNBUFFERED": "1"} | dict(environment),
                stdin=DEVNULL,
                stdout=write_end,
                stderr=write_end,
                # Only this process receives Ctrl-C; it then stops the programs in order.
                start_new_session=True,
                preexec_fn=partial(terminate_with_parent, signal.SIGTERM, os.getpid()),
            )
        finally:
            os.close(write_end)
        self._running[process] = urgent_signal
        try:
            yield process
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()
            # End the child processes that the program has left behind.
            _signal_session(process, signal.SIGKILL)
            await asyncio.wait([showing], timeout=_OUTPUT_TIMEOUT)
            showing.cancel()
            del self._running[process]

    def stop_now(self) -> None:
        """Stop all programs at once, each with its urgent signal."""
        for process, number in self._running.items():
            _signal_session(process, number)

    async def _show(self, name: str, read_end: int) -> None:
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            partial(asyncio.StreamReaderProtocol, reader), os.fdopen(read_end, "rb", buffering=0)
        )
        with closing(transport):
            rest = b""
            while chunk := await reader.read(_CHUNK):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self._screen.line(name, line.decode(errors="replace"))
            if rest:
                self._screen.line(name, rest.decode(errors="replace"))


def _signal_session(process: Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # macOS raises the latter for a zombie
        os.killpg(process.pid, number)
