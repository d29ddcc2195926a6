"""Handlers for tests: a task says what its handler is to do. Processes import this too, so it is small."""

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

from jobnik_sdk import DoNotRetry, Empty, RetryLater, Snooze, StageType, TaskContext, UnreachableError
from jobnik_sdk.observability import trace_context
from pydantic import BaseModel

FOREVER: Final = 1_000_000


class Order(BaseModel):
    """What the handler is to do, by the name of a function of this module."""

    do: str = "answer"
    value: int = 1


class Answer(BaseModel):
    """What came of it."""

    value: int


class Owner(BaseModel):
    """The metadata of tasks and stages."""

    name: str


Context = TaskContext[Owner]
orders = StageType("orders", task=Order, result=Answer, task_metadata=Owner)
released = threading.Event()
"""Ends those that ignore their cancellation, unless they are in a process."""


def obey(order: Order, context: Context) -> Answer:
    """Follow an order in a thread or a process."""
    return PLAIN[order.do](order, context)


async def obey_async(order: Order, context: Context) -> Answer:
    """Follow an order on the event loop: where it waits, it awaits."""
    waiting: dict[str, Callable[[Order, Context], Any]] = {
        "wait": wait_async,
        "return_late": return_late_async,
        "raise_late": raise_late_async,
        "put_off_late": put_off_late_async,
        "be_stubborn": be_stubborn_async,
    }
    if order.do in waiting:
        return await waiting[order.do](order, context)
    await asyncio.sleep(0)
    return PLAIN[order.do](order, context)


class PeculiarError(Exception):
    """An exception that cannot be unpickled."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


def _answer(order: Order, _context: Context) -> Answer:
    return Answer(value=order.value + 1)


def _complain(_order: Order, _context: Context) -> NoReturn:
    raise PeculiarError("very", "peculiar")


def _leave(_order: Order, _context: Context) -> NoReturn:
    raise SystemExit(3)


def _answer_wrongly(_order: Order, _context: Context) -> Answer:
    return Answer.model_construct(value="wide")


def _retry_later(_order: Order, _context: Context) -> NoReturn:
    raise RetryLater(timedelta(minutes=5)) from PeculiarError("too", "many")


def _do_not_retry(_order: Order, _context: Context) -> NoReturn:
    raise DoNotRetry("no such file")


def _snooze(_order: Order, _context: Context) -> NoReturn:
    raise Snooze(timedelta(hours=1))


def _describe(_order: Order, context: Context) -> Answer:
    assert trace_context.current_traceparent() == context.traceparent
    seen = (context.job.name, context.stage.order, context.attempt, context.max_attempts, context.metadata.name)
    assert seen == ("gallery", 2, 1, 3, "ada")
    assert context.stage.data == Empty()
    assert isinstance(context.checkpoint, int)
    context.logger.debug("described")
    return Answer(value=context.checkpoint)


def _make_progress(_order: Order, context: Context) -> Answer:
    with context.phase("download", weight=2, of=8):
        context.save_checkpoint({"downloaded": ["a.png"]})
    with context.phase("convert", weight=6, of=8) as convert:
        convert.progress(0.5, "a.png", timedelta(seconds=7))
    return Answer(value=0)


def _save_then_die(_order: Order, context: Context) -> NoReturn:
    context.save_checkpoint("last words")
    os._exit(7)


def _wait(_order: Order, context: Context) -> Answer:
    context.progress(0.5, "waiting")
    while True:
        context.cancellation.wait()


def _sleep(_order: Order, context: Context) -> Answer:
    context.progress(0.5, "sleeping")
    time.sleep(FOREVER)
    raise AssertionError


async def wait_async(_order: Order, context: Context) -> Answer:
    """Wait for the end."""
    context.progress(0.5, "waiting")
    await asyncio.sleep(FOREVER)
    raise AssertionError


def _await(_order: Order, context: Context) -> Answer:
    async def rest() -> NoReturn:
        context.progress(0.5, "awaiting")
        await asyncio.sleep(FOREVER)
        raise AssertionError

    return context.wait(rest())


def _clean_up_late(_order: Order, context: Context) -> NoReturn:
    async def clean_up() -> str:
        await asyncio.sleep(0.1)
        return "cleaned up"

    try:
        context.progress(0.5, "looking")
        while True:
            context.cancellation.raise_if_requested()
    finally:
        context.save_checkpoint(context.wait(clean_up()))


def _count_http_clients(_order: Order, _context: Context) -> Answer:
    return Answer(value=len({"httpx2", "jobnik_sdk.http.client", "prometheus_client"} & sys.modules.keys()))


def _look_for_manager(_order: Order, context: Context) -> Answer:
    return Answer(value=context.wait(_seen(context)))


async def _seen(context: Context) -> int:
    try:
        await context.producer.get_summary(context.stage.id)
    except UnreachableError:
        return 0
    raise AssertionError


def _return_late(order: Order, context: Context) -> Answer:
    try:
        _wait(order, context)
    except BaseException:  # noqa: BLE001 what is tested
        assert context.cancellation.requested
    return Answer(value=order.value + 1)


async def return_late_async(order: Order, context: Context) -> Answer:
    """Finish all the same."""
    try:
        await wait_async(order, context)
    except asyncio.CancelledError:
        assert context.cancellation.requested
    return Answer(value=order.value + 1)


def _raise_late(order: Order, context: Context) -> Answer:
    try:
        return _wait(order, context)
    finally:
        raise ValueError("while cleaning up")


async def raise_late_async(order: Order, context: Context) -> Answer:
    """Fail while cleaning up."""
    try:
        return await wait_async(order, context)
    finally:
        raise ValueError("while cleaning up")


def _put_off_late(order: Order, context: Context) -> Answer:
    try:
        return _wait(order, context)
    finally:
        raise RetryLater(timedelta(minutes=1))


async def put_off_late_async(order: Order, context: Context) -> Answer:
    """Say when to try again, having been cancelled."""
    try:
        return await wait_async(order, context)
    finally:
        raise RetryLater(timedelta(minutes=1))


def _be_stubborn(order: Order, context: Context) -> Answer:
    while not released.is_set():
        try:
            context.progress(0.5, "stubborn")
            released.wait()
        except BaseException:  # noqa: BLE001, S112 what is tested
            continue
    return Answer(value=order.value + 1)


async def be_stubborn_async(order: Order, context: Context) -> Answer:
    """Ignore the cancellation."""
    context.progress(0.5, "stubborn")
    while not released.is_set():
        try:
            await asyncio.to_thread(released.wait)
        except asyncio.CancelledError:
            continue
    return Answer(value=order.value + 1)


def _crash(_order: Order, _context: Context) -> NoReturn:
    ctypes.string_at(0)
    raise AssertionError


def _exit(_order: Order, _context: Context) -> NoReturn:
    os._exit(7)


def _tell_pid(_order: Order, _context: Context) -> Answer:
    return Answer(value=os.getpid())


_held: list[bytes] = []


def _leak(_order: Order, _context: Context) -> Answer:
    _held.append(os.urandom(200_000_000))
    return Answer(value=os.getpid())


def _ignore_signals(_order: Order, _context: Context) -> Answer:
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
    return Answer(value=os.getpid())


def _start_program(_order: Order, context: Context) -> Answer:
    program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000000)"])
    while True:
        try:
            context.save_checkpoint(program.pid)  # in here: it may be cancelled from the moment this is heard
            time.sleep(FOREVER)
        except BaseException:  # noqa: BLE001, S112 what is tested
            continue


def _crash_with_a_fork(_order: Order, context: Context) -> NoReturn:
    # It has all that its parent had open, the stream to the worker too.
    fork = os.fork()
    if not fork:
        time.sleep(FOREVER)
    context.save_checkpoint(fork)
    ctypes.string_at(0)
    raise AssertionError


PLAIN: Final[dict[str, Callable[[Order, Context], Answer]]] = {
    function.__name__.removeprefix("_"): function
    for function in (
        *(_answer, _complain, _leave, _answer_wrongly, _retry_later, _do_not_retry, _snooze, _describe),
        *(_make_progress, _save_then_die, _wait, _sleep, _return_late, _raise_late, _put_off_late, _be_stubborn),
        *(
            _await,
            _clean_up_late,
            _count_http_clients,
            _look_for_manager,
            _crash,
            _exit,
            _tell_pid,
            _leak,
            _ignore_signals,
            _start_program,
            _crash_with_a_fork,
        ),
    )
}


class _OnlyInTheWorker:
    def __reduce__(self) -> tuple[Callable[[], object], tuple[()]]:
        return _load, ()

    def __call__(self, _order: Order, _context: Context) -> Answer:
        raise AssertionError


def _load() -> object:
    if parent_process() is not None:
        raise ModuleNotFoundError("no module of this name here")
    return unloadable


unloadable = _OnlyInTheWorker()
"""A handler that a process cannot load."""


class _SlowToLoad:
    def __reduce__(self) -> tuple[Callable[[], object], tuple[()]]:
        return _load_slowly, ()

    def __call__(self, _order: Order, _context: Context) -> Answer:
        return Answer(value=2)


def _load_slowly() -> object:
    time.sleep(LOADING.total_seconds())
    return slow_to_load


LOADING: Final = timedelta(seconds=1)
slow_to_load = _SlowToLoad()
