"""The programs that run beside this one: what they say is shown, and none of them outlives it."""

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

_CHUNK: Final = 65_536
_LAST_WORDS_SECONDS: Final = 1.0
"""How long a program is listened to after its end, where somebody whom it has left behind may go on talking."""
_PR_SET_PDEATHSIG: Final = 1


def end_with_parent(by: signal.Signals, parent: int) -> None:
    """Have this process sent `by` when its parent ends, even by kill -9, where the system can do that: on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, by)
        if os.getppid() != parent:
            os.kill(os.getpid(), by)


class Programs:
    """Starts programs in a folder."""

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
        in_haste: signal.Signals = signal.SIGKILL,
    ) -> AsyncGenerator[Process]:
        """Run a program for the length of a block, in the end of which it gets SIGTERM and is waited for.

        `environment` comes on top of this process's. `in_haste` is what `hurry` sends it, and what it has started.
        """
        # Not a pipe of asyncio's, whose `wait` then waits for everybody who has inherited the other end.
        said, saying = os.pipe()
        showing = asyncio.create_task(self._show(name, said))
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=self._folder,
                env=os.environ | {"PYTHONUNBUFFERED": "1"} | dict(environment),
                stdin=DEVNULL,
                stdout=saying,
                stderr=saying,
                # Ctrl-C is for this process, which then stops the others in order.
                start_new_session=True,
                preexec_fn=partial(end_with_parent, signal.SIGTERM, os.getpid()),
            )
        finally:
            os.close(saying)
        self._running[process] = in_haste
        try:
            yield process
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()
            # What it has started and left behind.
            _signal_session(process, signal.SIGKILL)
            await asyncio.wait([showing], timeout=_LAST_WORDS_SECONDS)
            showing.cancel()
            del self._running[process]

    def hurry(self) -> None:
        """End what is running at once."""
        for process, number in self._running.items():
            _signal_session(process, number)

    async def _show(self, name: str, said: int) -> None:
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            partial(asyncio.StreamReaderProtocol, reader), os.fdopen(said, "rb", buffering=0)
        )
        with closing(transport):
            begun = b""
            while chunk := await reader.read(_CHUNK):
                *lines, begun = (begun + chunk).split(b"\n")
                for line in lines:
                    self._screen.line(name, line.decode(errors="replace"))
            if begun:
                self._screen.line(name, begun.decode(errors="replace"))


def _signal_session(process: Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # macOS says the latter of a zombie's
        os.killpg(process.pid, number)
