"""Run programs for the demo: tools until they exit, servers in the background. None of them outlives the demo."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from jobnik_devtools.environments import clean_environment
from pydantic import TypeAdapter
from reference_manager.embedded.process import end_with_parent

_POLL_INTERVAL = timedelta(milliseconds=20)
_STOP_LIMIT = timedelta(seconds=20)
_TAIL_LINES = 15
_LINE: Final = TypeAdapter(dict[str, Any])


class DemoError(Exception):
    """The demo failed; the message tells the user why."""


@dataclass(frozen=True)
class Background:
    """A program that runs until the demo stops it."""

    name: str
    log: Path
    process: asyncio.subprocess.Process

    def check_alive(self) -> None:
        """Check that the program is running.

        Raises:
            DemoError: The program has ended; the message quotes the end of its log.
        """
        if self.process.returncode is not None:
            raise DemoError(
                f"The {self.name} exited unexpectedly with code {self.process.returncode}.\n{_tail(self.log)}"
            )

    async def event(self, name: str) -> dict[str, Any]:
        """Wait for an event in the program's log, and return its fields."""
        while True:
            for line in log_events(self.log, name):
                return line
            self.check_alive()
            await asyncio.sleep(_POLL_INTERVAL.total_seconds())


@asynccontextmanager
async def background(name: str, command: Sequence[str], log: Path, **environment: str) -> AsyncGenerator[Background]:
    """Run a program in the background with these environment variables; stop it at the end and wait until it exits."""
    process = await _start(command, log, environment)
    try:
        yield Background(name, log, process)
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_LIMIT.total_seconds())
        except TimeoutError:
            process.kill()
            await process.wait()


async def run_tool(command: Sequence[str], log: Path) -> None:
    """Run a program until it exits.

    Raises:
        DemoError: The program failed; the message quotes the end of its output.
    """
    process = await _start(command, log, {})
    try:
        await process.wait()
    finally:
        if process.returncode is None:
            # The group includes its subprocesses, such as the git that uv runs.
            os.killpg(process.pid, signal.SIGTERM)
            await process.wait()
    if process.returncode != 0:
        raise DemoError(f"`{' '.join(command)}` failed with exit code {process.returncode}.\n{_tail(log)}")


def log_events(log: Path, name: str) -> Iterator[dict[str, Any]]:
    """Yield the fields of each line with this event in a JSON log."""
    for line in log.read_text(errors="replace").splitlines():
        try:
            fields = _LINE.validate_json(line)
        except ValueError:
            continue
        if fields.get("event") == name:
            yield fields


async def _start(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> asyncio.subprocess.Process:
    with log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**clean_environment(), **environment},
            # Ctrl-C must reach the demo alone, which then stops its programs in order.
            start_new_session=True,
            preexec_fn=end_with_parent(signal.SIGTERM),
        )


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
    return "\n".join([*lines, f"The full log is in {log}."])
