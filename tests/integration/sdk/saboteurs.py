"""A worker for tests: some of its tasks sabotage it, in every way that a handler can, and neighbours only wait.

Usage: python -m tests.integration.sdk.saboteurs NAME ROUNDS, with the settings in the environment. ROUNDS is the number
of rounds of saboteurs that end their process and may run at once.
"""

import asyncio
import contextlib
import ctypes
import inspect
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

from jobnik_sdk import Handler, HandlerStyle, JobnikClient, StageType, TaskContext, Worker, WorkerSettings, run
from pydantic import BaseModel
from typing_extensions import override

from tests.support.processes import hold_the_gil

FOREVER: Final = 1_000_000
DEADLY_ROUNDS: Final = 10
"""The default of how many rounds of saboteurs that end their process may run at once. The slowest of a round run for a
second, and are killed five seconds after that."""
LEASE: Final = timedelta(seconds=9)
ALL, PLAIN = tuple(HandlerStyle), (HandlerStyle.THREAD, HandlerStyle.PROCESS)


class Order(BaseModel):
    """What a saboteur does: the name of an entry of `SABOTEURS`."""

    do: str


class Wait(BaseModel):
    """How long a neighbour waits."""

    seconds: float


class Saboteur(NamedTuple):
    """A kind of sabotage, and how its attempt must end."""

    function: Callable[[TaskContext], Any]
    """Called by a plain function; an async handler awaits its result if it is a coroutine."""
    styles: tuple[HandlerStyle, ...]
    ends: frozenset[str]
    """The types of the error, of which one is reported; empty if the task completes."""
    timeout_seconds: int | None = None


class UnreadableError(Exception):
    """An exception that cannot be shown or pickled."""

    @override
    def __str__(self) -> str:
        raise SystemExit(4)

    @override
    def __repr__(self) -> str:
        raise KeyboardInterrupt

    @override
    def __reduce__(self) -> NoReturn:
        raise GeneratorExit


def _raise(error: BaseException) -> Callable[[TaskContext], NoReturn]:
    def do(_context: TaskContext) -> NoReturn:
        raise error.with_traceback(None)  # otherwise its traceback would grow with each attempt

    return do


def _recurse(context: TaskContext) -> None:
    _recurse(context)


def _generate(_context: TaskContext) -> Generator[int]:
    yield 1


async def _generate_async(_context: TaskContext) -> AsyncGenerator[int]:
    yield 1


async def _pass() -> None: ...


def _return_coroutine(_context: TaskContext) -> Coroutine[Any, Any, None]:
    return _pass()


async def _exit() -> NoReturn:
    raise SystemExit(5)


async def _exit_in_a_task(_context: TaskContext) -> None:
    await asyncio.create_task(_exit())


async def _exit_in_a_group(_context: TaskContext) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_exit())


async def _block(_context: TaskContext) -> None:
    time.sleep(0.2)  # noqa: ASYNC251 this is what is tested


def _leave_orphans(_context: TaskContext) -> None:
    subprocess.run(["/bin/sh", "-c", "sleep 0.2 & exit 0"], check=True)


def _fork(_context: TaskContext) -> None:
    # Not a process of multiprocessing: it keeps its files for good if another saboteur has waited for it.
    if os.fork() == 0:
        time.sleep(2)
        os._exit(0)


def _fork_and_return(_context: TaskContext) -> None:
    if pid := os.fork():
        with contextlib.suppress(ChildProcessError):  # another saboteur of this process waits for any child
            os.waitpid(pid, 0)


def _wait_for_any(_context: TaskContext) -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


def _delete_the_working_directory(_context: TaskContext) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)


def _change_the_process(_context: TaskContext) -> None:
    os.chdir("/proc")
    os.umask(0o777)
    os.environ.clear()
    socket.setdefaulttimeout(0.01)
    random.seed(1)
    warnings.simplefilter("error")
    multiprocessing.set_start_method("fork", force=True)


def _signal(number: int) -> Callable[[TaskContext], None]:
    return lambda _context: os.kill(os.getpid(), number)


def _crash(_context: TaskContext) -> None:
    ctypes.string_at(0)


def _leave_programs_and_die(_context: TaskContext) -> None:
    script = f"sleep {FOREVER} & exec sleep {FOREVER}"
    subprocess.Popen(["/bin/sh", "-c", script], start_new_session=True)  # noqa: S603 our own
    os._exit(3)


def _close_files(_context: TaskContext) -> None:
    os.closerange(3, 1000)


def _scribble(_context: TaskContext) -> None:
    for file in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if int(file.name) > sys.stderr.fileno() and str(file.readlink()).startswith("socket:"):
                os.write(int(file.name), b"\0\0\0\0\0\0\0\3abc")


def _kill_parent(_context: TaskContext) -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(FOREVER)


def _hold_the_gil(context: TaskContext) -> None:
    context.logger.info("holding the gil")
    for _ in range(FOREVER):
        hold_the_gil(1000)


def _start_a_program_and_hold_the_gil(context: TaskContext) -> None:
    with subprocess.Popen(["/bin/sleep", str(FOREVER)], start_new_session=True):  # noqa: S603 our own program
        _hold_the_gil(context)


def _ignore_everything(_context: TaskContext) -> NoReturn:
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(FOREVER)


def _log_much(context: TaskContext) -> None:
    context.logger.info("much", blob="a" * 200_000)


_DIED = frozenset({"ProcessDiedError"})
_TIMED_OUT = frozenset({"TimedOut", "TimeoutError"})

SABOTEURS: Final[dict[str, Saboteur]] = {
    **{
        type(error).__name__: Saboteur(_raise(error), ALL, frozenset({type(error).__name__}))
        for error in (
            KeyboardInterrupt(),
            SystemExit(3),
            GeneratorExit(),
            asyncio.CancelledError(),
            BaseExceptionGroup("two", [KeyboardInterrupt(), ValueError()]),
            MemoryError(),
            UnreadableError(),
        )
    },
    "recurse": Saboteur(_recurse, ALL, frozenset({"RecursionError"})),
    "generate": Saboteur(_generate, ALL, frozenset({"ConfigurationError"})),
    "generate_async": Saboteur(_generate_async, ALL, frozenset({"ConfigurationError"})),
    "coroutine": Saboteur(_return_coroutine, PLAIN, frozenset({"ConfigurationError"})),
    "exit_in_a_task": Saboteur(_exit_in_a_task, (HandlerStyle.ASYNC,), frozenset({"SystemExit"})),
    "exit_in_a_group": Saboteur(_exit_in_a_group, (HandlerStyle.ASYNC,), frozenset({"BaseExceptionGroup"})),
    "block": Saboteur(_block, (HandlerStyle.ASYNC,), frozenset()),
    "leave_orphans": Saboteur(_leave_orphans, PLAIN, frozenset()),
    "fork": Saboteur(_fork, PLAIN, frozenset()),
    "fork_and_return": Saboteur(_fork_and_return, PLAIN, frozenset()),
    "wait_for_any": Saboteur(_wait_for_any, PLAIN, frozenset()),
    "delete_the_working_directory": Saboteur(_delete_the_working_directory, ALL, frozenset()),
    "change_the_process": Saboteur(_change_the_process, ALL, frozenset()),
    "log_much": Saboteur(_log_much, PLAIN, frozenset()),
    "signal_37": Saboteur(_signal(37), (HandlerStyle.PROCESS,), _DIED),
    "signal_64": Saboteur(_signal(64), (HandlerStyle.PROCESS,), _DIED),
    "crash": Saboteur(_crash, (HandlerStyle.PROCESS,), _DIED),
    "leave_programs_and_die": Saboteur(_leave_programs_and_die, (HandlerStyle.PROCESS,), _DIED),
    "close_files": Saboteur(_close_files, (HandlerStyle.PROCESS,), _DIED),
    "scribble": Saboteur(_scribble, (HandlerStyle.PROCESS,), _DIED),
    "kill_parent": Saboteur(_kill_parent, (HandlerStyle.PROCESS,), _DIED),
    "hold_the_gil": Saboteur(_hold_the_gil, (HandlerStyle.PROCESS,), _TIMED_OUT, timeout_seconds=1),
    "start_a_program_and_hold_the_gil": Saboteur(
        _start_a_program_and_hold_the_gil, (HandlerStyle.PROCESS,), _TIMED_OUT, timeout_seconds=1
    ),
    "ignore_everything": Saboteur(_ignore_everything, (HandlerStyle.PROCESS,), _TIMED_OUT, timeout_seconds=1),
}


DEADLY: Final = frozenset(do for do, saboteur in SABOTEURS.items() if saboteur.ends in (_DIED, _TIMED_OUT))
"""The kinds that end their process, so that a new one must be started for the next attempt."""


def sabotages(name: str, style: HandlerStyle, *, deadly: bool = False) -> StageType[Order]:
    """Return the stage type of the saboteurs of a worker. Those that are deadly have processes of their own."""
    return StageType(f"{name}-{'deadly' if deadly else 'saboteurs'}-{style}", task=Order)


def neighbours(name: str, style: HandlerStyle) -> StageType[Wait]:
    """Return the stage type of the neighbours of a worker."""
    return StageType(f"{name}-neighbours-{style}", task=Wait)


def sabotage(task: Order, context: TaskContext) -> None:
    """Do what the task says, in a thread or a process."""
    return SABOTEURS[task.do].function(context)


async def sabotage_async(task: Order, context: TaskContext) -> Any:  # noqa: ANN401 some saboteurs return what they must not
    """Do what the task says, on the event loop."""
    value = SABOTEURS[task.do].function(context)
    return await value if inspect.iscoroutine(value) else value


def wait(task: Wait, _context: TaskContext) -> None:
    """Wait, in a thread or a process."""
    time.sleep(task.seconds)


async def wait_async(task: Wait, _context: TaskContext) -> None:
    """Wait on the event loop."""
    await asyncio.sleep(task.seconds)


class Container:
    """The parts of the process."""

    def __init__(self, name: str, deadly_rounds: str) -> None:
        self._name = name
        self._deadly_rounds = int(deadly_rounds)

    def settings(self) -> WorkerSettings:
        """Read the settings."""
        return WorkerSettings()

    def worker(self) -> Worker:
        """Create the worker."""
        settings, name = self.settings(), self._name
        deadly = sabotages(name, HandlerStyle.PROCESS, deadly=True)
        handlers = [
            Handler(deadly, sabotage, style=HandlerStyle.PROCESS, concurrency=4 * self._deadly_rounds),
            Handler(sabotages(name, HandlerStyle.ASYNC), sabotage_async, concurrency=20),
            Handler(sabotages(name, HandlerStyle.THREAD), sabotage, style=HandlerStyle.THREAD, concurrency=20),
            Handler(sabotages(name, HandlerStyle.PROCESS), sabotage, style=HandlerStyle.PROCESS, concurrency=4),
            Handler(neighbours(name, HandlerStyle.ASYNC), wait_async, concurrency=120),
            Handler(neighbours(name, HandlerStyle.THREAD), wait, style=HandlerStyle.THREAD, concurrency=78),
            Handler(neighbours(name, HandlerStyle.PROCESS), wait, style=HandlerStyle.PROCESS, concurrency=2),
        ]
        client = JobnikClient(settings.jobnik_base_url)
        return Worker(client, handlers, lease=LEASE, drain_timeout=settings.drain_timeout)


if __name__ == "__main__":
    raise SystemExit(run(Container(*sys.argv[1:])))
