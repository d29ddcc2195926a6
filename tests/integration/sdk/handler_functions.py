"""Handlers for tests: a task names what its handler does. Processes import this module, so it is small."""

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from multiprocessing import parent_process
from typing import Any, Final, NoReturn

import structlog
from jobnik_sdk import DoNotRetry, Empty, RetryLater, Snooze, StageType, TaskContext, UnreachableError
from jobnik_sdk.observability import trace_context
from pydantic import BaseModel

FOREVER: Final = 1_000_000


class Command(BaseModel):
    """The data of a task: `do` is the name of a function of this module."""

    do: str = "increment"
    value: int = 1


class Result(BaseModel):
    """The result of a task."""

    value: int


class Owner(BaseModel):
    """The metadata of tasks and stages."""

    name: str


Context = TaskContext[Owner]
commands = StageType("commands", task=Command, result=Result, task_metadata=Owner)
released = threading.Event()
"""Ends handlers that ignore cancellation, unless they run in a process."""


def run_command(command: Command, context: Context) -> Result:
    """Run a command in a thread or a process."""
    return PLAIN[command.do](command, context)


async def run_command_async(command: Command, context: Context) -> Result:
    """Run a command on the event loop; a command that waits has an asynchronous variant."""
    asynchronous: dict[str, Callable[[Command, Context], Any]] = {
        "wait": wait_async,
        "return_late": return_late_async,
        "raise_late": raise_late_async,
        "retry_later_late": retry_later_late_async,
        "ignore_cancellation": ignore_cancellation_async,
    }
    if command.do in asynchronous:
        return await asynchronous[command.do](command, context)
    await asyncio.sleep(0)
    return PLAIN[command.do](command, context)


class UnpicklableError(Exception):
    """An exception that cannot be unpickled."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


def _increment(command: Command, _context: Context) -> Result:
    return Result(value=command.value + 1)


def _raise_unpicklable(_command: Command, _context: Context) -> NoReturn:
    raise UnpicklableError("very", "strange")


def _exit_system(_command: Command, _context: Context) -> NoReturn:
    raise SystemExit(3)


def _return_invalid(_command: Command, _context: Context) -> Result:
    return Result.model_construct(value="wide")


def _retry_later(_command: Command, _context: Context) -> NoReturn:
    raise RetryLater(timedelta(minutes=5)) from UnpicklableError("too", "many")


def _do_not_retry(_command: Command, _context: Context) -> NoReturn:
    raise DoNotRetry("no such file")


def _snooze(_command: Command, _context: Context) -> NoReturn:
    raise Snooze(timedelta(hours=1))


def _describe(_command: Command, context: Context) -> Result:
    assert trace_context.current_traceparent() == context.traceparent
    values = (context.job.name, context.stage.order, context.attempt, context.max_attempts, context.metadata.name)
    assert values == ("gallery", 2, 1, 3, "ada")
    assert context.stage.data == Empty()
    assert isinstance(context.checkpoint, int)
    context.logger.debug("described")
    return Result(value=context.checkpoint)


def _make_progress(_command: Command, context: Context) -> Result:
    with context.phase("download", weight=2, of=8):
        context.save_checkpoint({"downloaded": ["a.png"]})
    with context.phase("convert", weight=6, of=8) as convert:
        convert.progress(0.5, "a.png", timedelta(seconds=7))
    return Result(value=0)


def _save_then_exit(_command: Command, context: Context) -> NoReturn:
    context.save_checkpoint("last words")
    os._exit(7)


def _wait(_command: Command, context: Context) -> Result:
    context.progress(0.5, "waiting")
    while True:
        context.cancellation.wait()


def _sleep(_command: Command, context: Context) -> Result:
    context.progress(0.5, "sleeping")
    time.sleep(FOREVER)
    raise AssertionError


async def wait_async(_command: Command, context: Context) -> Result:
    """Wait until it is cancelled."""
    context.progress(0.5, "waiting")
    await asyncio.sleep(FOREVER)
    raise AssertionError


def _await(_command: Command, context: Context) -> Result:
    async def rest() -> NoReturn:
        context.progress(0.5, "awaiting")
        await asyncio.sleep(FOREVER)
        raise AssertionError

    return context.wait(rest())


def _clean_up_late(_command: Command, context: Context) -> NoReturn:
    async def clean_up() -> str:
        await asyncio.sleep(0.1)
        return "cleaned up"

    try:
        context.progress(0.5, "checking")
        while True:
            context.cancellation.raise_if_requested()
    finally:
        context.save_checkpoint(context.wait(clean_up()))


def _count_http_clients(_command: Command, _context: Context) -> Result:
    return Result(value=len({"httpx2", "jobnik_sdk.http.client", "prometheus_client"} & sys.modules.keys()))


def _request_summary(_command: Command, context: Context) -> Result:
    return Result(value=context.wait(_request(context)))


async def _request(context: Context) -> int:
    try:
        await context.producer.get_summary(context.stage.id)
    except UnreachableError:
        return 0
    raise AssertionError


def _return_late(command: Command, context: Context) -> Result:
    try:
        _wait(command, context)
    except BaseException:  # noqa: BLE001 on purpose
        assert context.cancellation.requested
    return Result(value=command.value + 1)


async def return_late_async(command: Command, context: Context) -> Result:
    """Return a result although it was cancelled."""
    try:
        await wait_async(command, context)
    except asyncio.CancelledError:
        assert context.cancellation.requested
    return Result(value=command.value + 1)


def _raise_late(command: Command, context: Context) -> Result:
    try:
        return _wait(command, context)
    finally:
        raise ValueError("while cleaning up")


async def raise_late_async(command: Command, context: Context) -> Result:
    """Raise an exception while cleaning up."""
    try:
        return await wait_async(command, context)
    finally:
        raise ValueError("while cleaning up")


def _retry_later_late(command: Command, context: Context) -> Result:
    try:
        return _wait(command, context)
    finally:
        raise RetryLater(timedelta(minutes=1))


async def retry_later_late_async(command: Command, context: Context) -> Result:
    """Raise `RetryLater` after the cancellation."""
    try:
        return await wait_async(command, context)
    finally:
        raise RetryLater(timedelta(minutes=1))


def _ignore_cancellation(command: Command, context: Context) -> Result:
    while not released.is_set():
        try:
            context.progress(0.5, "ignoring")
            released.wait()
        except BaseException:  # noqa: BLE001, S112 on purpose
            continue
    return Result(value=command.value + 1)


async def ignore_cancellation_async(command: Command, context: Context) -> Result:
    """Ignore cancellation."""
    context.progress(0.5, "ignoring")
    while not released.is_set():
        try:
            await asyncio.to_thread(released.wait)
        except asyncio.CancelledError:
            continue
    return Result(value=command.value + 1)


def _crash(_command: Command, _context: Context) -> NoReturn:
    ctypes.string_at(0)
    raise AssertionError


def _exit(_command: Command, _context: Context) -> NoReturn:
    os._exit(7)


def _signal_itself(command: Command, _context: Context) -> Result:
    os.kill(os.getpid(), command.value)
    return Result(value=0)


def _bind_a_variable(_command: Command, _context: Context) -> Result:
    before = len(structlog.contextvars.get_contextvars())
    structlog.contextvars.bind_contextvars(bound="by the first task")
    return Result(value=before)


def _start_a_session(_command: Command, context: Context) -> Result:
    program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000000)"], start_new_session=True)
    context.save_checkpoint(program.pid)
    return Result(value=0)


def _return_pid(_command: Command, _context: Context) -> Result:
    return Result(value=os.getpid())


_held: list[bytes] = []


def _leak(_command: Command, _context: Context) -> Result:
    _held.append(os.urandom(200_000_000))
    return Result(value=os.getpid())


def _ignore_signals(_command: Command, _context: Context) -> Result:
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
    return Result(value=os.getpid())


def _start_program(_command: Command, context: Context) -> Result:
    program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000000)"])
    while True:
        try:
            context.save_checkpoint(program.pid)  # inside `try`, because the test cancels as soon as it receives this
            time.sleep(FOREVER)
        except BaseException:  # noqa: BLE001, S112 on purpose
            continue


def _crash_with_a_fork(_command: Command, context: Context) -> NoReturn:
    # The fork has its parent's open files, including the stream to the worker.
    fork = os.fork()
    if not fork:
        time.sleep(FOREVER)
    context.save_checkpoint(fork)
    ctypes.string_at(0)
    raise AssertionError


PLAIN: Final[dict[str, Callable[[Command, Context], Result]]] = {
    function.__name__.removeprefix("_"): function
    for function in (
        *(
            _increment,
            _raise_unpicklable,
            _exit_system,
            _return_invalid,
            _retry_later,
            _do_not_retry,
            _snooze,
            _describe,
        ),
        *(
            _make_progress,
            _save_then_exit,
            _wait,
            _sleep,
            _return_late,
            _raise_late,
            _retry_later_late,
            _ignore_cancellation,
        ),
        *(
            _await,
            _clean_up_late,
            _count_http_clients,
            _request_summary,
            _crash,
            _exit,
            _return_pid,
            _signal_itself,
            _bind_a_variable,
            _start_a_session,
            _leak,
            _ignore_signals,
            _start_program,
            _crash_with_a_fork,
        ),
    )
}


class _OnlyInTheWorker:
    def __reduce__(self) -> tuple[Callable[[], object], tuple[()]]:
        return _import, ()

    def __call__(self, _command: Command, _context: Context) -> Result:
        raise AssertionError


def _import() -> object:
    if parent_process() is not None:
        raise ModuleNotFoundError("no module of this name here")
    return unimportable


unimportable = _OnlyInTheWorker()
"""A handler that a process cannot import."""


class _SlowImport:
    def __reduce__(self) -> tuple[Callable[[], object], tuple[()]]:
        return _import_slowly, ()

    def __call__(self, _command: Command, _context: Context) -> Result:
        return Result(value=2)


def _import_slowly() -> object:
    time.sleep(IMPORT_TIME.total_seconds())
    return slow_import


IMPORT_TIME: Final = timedelta(seconds=1)
slow_import = _SlowImport()
