"""A program that runs a handler in a process before and after it has changed its own process-wide state.

It prints what the handler sees, as one JSON object with the keys "before", "after", and "homeless" for a process that
starts after the program's first directory has been deleted, too.
"""

import asyncio
import json
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import warnings
from datetime import timedelta
from pathlib import Path

from jobnik_sdk import Completed, Handler, HandlerStyle, StageType, TaskContext
from jobnik_sdk.execution.runner import Runner
from jobnik_sdk.execution.runners import runner_for
from pydantic import BaseModel

from tests.integration.sdk.handler_harness import context


class State(BaseModel):
    """What a process of a handler has inherited."""

    directory: str
    environment: dict[str, str]
    umask: int
    paths: list[str]
    arguments: list[str]
    ignored_signals: list[int]
    blocked_signals: list[int]
    start_method: str
    files: list[str]
    """Standard input, output and error."""


class Nothing(BaseModel):
    """The data of a task."""


states = StageType("states", task=Nothing, result=State)


def read_state(_task: Nothing, _context: TaskContext) -> State:
    """Return the state of this process."""
    os.umask(umask := os.umask(0))
    return State(
        directory=os.getcwd(),  # noqa: PTH109 as text
        environment=dict(os.environ),
        umask=umask,
        paths=sys.path,
        arguments=sys.argv,
        ignored_signals=sorted(
            number for number in signal.valid_signals() if signal.getsignal(number) is signal.SIG_IGN
        ),
        blocked_signals=sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        start_method=multiprocessing.get_start_method(),
        files=[os.readlink(f"/proc/self/fd/{number}") for number in range(3)],  # noqa: PTH115 as text
    )


def change_everything() -> None:
    """Change what the processes of a program inherit, in ways that handlers really do."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
    os.environ.clear()
    os.umask(0o777)
    sys.path.clear()
    sys.argv[1:] = ["--changed"]
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    socket.setdefaulttimeout(0.01)
    multiprocessing.set_start_method("fork", force=True)
    warnings.simplefilter("error")
    os.close(sys.stdin.fileno())


async def main() -> None:
    """Run the program."""
    runner = runner_for(Handler(states, read_state, style=HandlerStyle.PROCESS, recycle_after=1), timedelta(seconds=1))
    await runner.open()
    first_directory = Path.cwd()
    seen = {"before": await _run(runner)}
    change_everything()
    seen["after"] = await _run(runner)
    first_directory.rmdir()
    seen["homeless"] = await _run(runner)
    await runner.close()
    print(json.dumps(seen), flush=True)  # noqa: T201 for the test


async def _run(runner: Runner) -> object:
    outcome = await runner.run(Nothing(), context())
    return json.loads(outcome.result or b"") if isinstance(outcome, Completed) else repr(outcome)


if __name__ == "__main__":
    asyncio.run(main())
