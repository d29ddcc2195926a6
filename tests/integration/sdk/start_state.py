"""A program that shows what a handler's process sees of its start: with the fork server twice, and once without.

It prints one JSON object for each of the three. Tests call `main` from main modules of every kind.
"""

import atexit
import gc
import json
import multiprocessing
import os
import random
import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
from jobnik_sdk import Completed, Handler, HandlerStyle, StageType, TaskContext
from jobnik_sdk.execution.processes import fork_server
from jobnik_sdk.execution.runners import runner_for
from pydantic import BaseModel

from tests.integration.sdk.handler_harness import context
from tests.support.processes import command_line


class State(BaseModel):
    """What a process sees."""

    seen: dict[str, Any]


class Nothing(BaseModel):
    """The data of a task."""


states = StageType("states", task=Nothing, result=State)


@contextmanager
def say_goodbye() -> Generator[None]:
    """Write to standard error when the interpreter ends."""
    atexit.register(os.write, 2, b"the process has ended\n")
    yield


def read_state(_task: Nothing, _context: TaskContext, _lifespan: None) -> State:
    """Return what this process sees."""
    main, parent, process = sys.modules["__main__"], multiprocessing.parent_process(), multiprocessing.current_process()
    assert parent is not None
    folder = Path("/proc/self/fd")
    files = [str(file.readlink()) for file in folder.iterdir() if file.is_symlink() and int(file.name) > 2]
    seen = {
        "main": [main.__name__, getattr(main, "__file__", None), sys.modules.get("__mp_main__") is main],
        "loaded by main": sorted(name for name in sys.modules if name.startswith("started")),
        "paths": sys.path,
        "arguments": sys.argv,
        "flags": list(sys.flags),
        "standard streams": [
            [stream.encoding, stream.errors, stream.line_buffering] for stream in (sys.stdout, sys.stderr)
        ],
        "parent": [parent.name, parent.pid == int(os.environ["WORKER"]), parent.is_alive()],
        "process": [process.name, process.daemon, process.authkey.hex()],
        "children": len(multiprocessing.active_children()),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "main thread": threading.main_thread().native_id == os.getpid() == threading.get_native_id(),
        "collector": [gc.isenabled(), gc.get_threshold()],
        "blocked signals": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "signals": {number: repr(signal.getsignal(number))[:20] for number in range(1, 32)},
        "files": sorted(file.partition(":")[0] for file in files if "pym-" not in file),
        "environment": {name: value for name, value in os.environ.items() if name != "WORKER"},
        "session": os.getsid(0) == os.getppid() and os.getpgid(0) == os.getpid(),
        "directory": os.getcwd(),  # noqa: PTH109 as text
        "limits": Path("/proc/self/limits").read_text(),
        "random": random.random(),  # noqa: S311 to compare processes
        "forked": "fork_server" in command_line(os.getpid()),
    }
    return State(seen=json.loads(json.dumps(seen)))


async def _report(runs: int) -> None:
    runner = runner_for(Handler(states, read_state, style=HandlerStyle.PROCESS, recycle_after=1, lifespan=say_goodbye))
    await runner.open()
    for _ in range(runs):
        outcome = await runner.run(Nothing(), context())
        result = outcome.result if isinstance(outcome, Completed) else None
        sys.stdout.write(f"{(result or repr(outcome).encode()).decode()}\n")
    await runner.close()


async def main() -> None:
    """Run the program."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    os.environ["WORKER"] = str(os.getpid())
    await _report(2)
    fork_server.is_available = lambda: False
    await _report(1)
    sys.stdout.flush()
