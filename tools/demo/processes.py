"""The programs that the demo runs: tools to their end, servers in the background, none of them longer than itself."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter
from reference_manager.embedded.process import end_with_parent

_POLL_INTERVAL = timedelta(milliseconds=20)
_STOP_LIMIT = timedelta(seconds=20)
_TAIL_LINES = 15
_LINE: Final = TypeAdapter(dict[str, Any])

# They point at the environment that the demo itself runs in.
_OURS_ALONE = {"VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT", "PYTHONPATH"}


class DemoError(Exception):
    """The demo cannot go on; the message tells the person who started it why."""


@dataclass(frozen=True)
class Background:
    """A program that runs until the demo stops it."""

    name: str
    log: Path
    process: asyncio.subprocess.Process

    def check_alive(self) -> None:
        """Make sure that it has not ended.

        Raises:
            DemoError: It has; the message quotes the end of its log.
        """
        if self.process.returncode is not None:
            raise DemoError(f"The {self.name} ended (exit code {self.process.returncode}).\n{_tail(self.log)}")

    async def event(self, name: str) -> dict[str, Any]:
        """Wait for the line of its log that announces an event."""
        while True:
            for line in log_events(self.log, name):
                return line
            self.check_alive()
            await asyncio.sleep(_POLL_INTERVAL.total_seconds())


@asynccontextmanager
async def background(name: str, command: Sequence[str], log: Path, **environment: str) -> AsyncGenerator[Background]:
    """Run a program beside the demo, with these environment variables; at the end ask it to stop, and wait for it."""
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
    """Run a program to its end.

    Raises:
        DemoError: It failed; the message quotes the end of what it said.
    """
    process = await _start(command, log, {})
    try:
        await process.wait()
    finally:
        if process.returncode is None:
            # Its helpers too, such as the git that uv runs.
            os.killpg(process.pid, signal.SIGTERM)
            await process.wait()
    if process.returncode != 0:
        raise DemoError(f"{' '.join(command)} failed (exit code {process.returncode}).\n{_tail(log)}")


def log_events(log: Path, name: str) -> Iterator[dict[str, Any]]:
    """Read the lines of a JSON log that announce this event."""
    for line in log.read_text(errors="replace").splitlines():
        try:
            fields = _LINE.validate_json(line)
        except ValueError:
            continue
        if fields.get("event") == name:
            yield fields


async def _start(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> asyncio.subprocess.Process:
    inherited = {name: value for name, value in os.environ.items() if name not in _OURS_ALONE}
    with log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**inherited, **environment},
            # Ctrl-C is for the demo, which then stops its programs in order.
            start_new_session=True,
            preexec_fn=end_with_parent(signal.SIGTERM),
        )


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
    return "\n".join([*lines, f"All of it is in {log}."])
