"""A worker process for tests, with a handler of each style, whose tasks tell it how to misbehave."""

import asyncio
import ctypes
import signal
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from jobnik_sdk import Handler, HandlerStyle, JobnikClient, StageType, TaskContext, Worker, configure_logging
from pydantic import BaseModel

FOREVER: Final = 1_000_000
WORK: Final = 0.3
"""Seconds that an ordinary task takes."""
LEASE: Final = timedelta(seconds=4)
LONG: Final = 1.5 * LEASE.total_seconds()
"""Seconds after which a lease that nobody renewed has expired."""


class Misbehaviour(BaseModel):
    """A task's data: the name of a function of this module, without its underscore."""

    do: str = "work"


class Text(BaseModel):
    """A result."""

    text: str


def stage_type(name: str, style: HandlerStyle) -> StageType[Misbehaviour, Text]:
    """Return the stage type for a handler of this style, in a worker of this name."""
    return StageType(f"{name}-{style}", task=Misbehaviour, result=Text)


def do(task: Misbehaviour, context: TaskContext) -> Text:
    """Misbehave in a thread or a process."""
    return _PLAIN[task.do](context)


async def do_async(task: Misbehaviour, context: TaskContext) -> Text:
    """Misbehave on the event loop."""
    match task.do:
        case "work":
            await asyncio.sleep(WORK)
            return Text(text="done")
        case "ignore":
            return await _ignore_async()
        case _:
            return _PLAIN[task.do](context)


def _work(_context: TaskContext) -> Text:
    time.sleep(WORK)
    return Text(text="done")


def _block(_context: TaskContext) -> Text:
    time.sleep(LONG)
    return Text(text="done")


def _ignore(_context: TaskContext) -> Text:
    while True:
        try:
            time.sleep(0.1)
        except BaseException:  # noqa: BLE001, S112 this is what is tested
            continue


async def _ignore_async() -> Text:
    while True:
        try:
            await asyncio.sleep(FOREVER)
        except asyncio.CancelledError:
            continue


def _crash(_context: TaskContext) -> Text:
    ctypes.string_at(0)
    raise AssertionError


_kept: Final[list[bytes]] = []


def _leak(_context: TaskContext) -> Text:
    _kept.append(bytes(range(256)) * 1_000_000)
    return Text(text="done")


def _save_much(context: TaskContext) -> Text:
    context.save_checkpoint("x" * 200_000)
    time.sleep(LONG)
    raise ValueError("again")


def _save_too_much(context: TaskContext) -> Text:
    context.save_checkpoint("x" * 2_000_000)
    raise AssertionError


def _return_too_much(_context: TaskContext) -> Text:
    return Text(text="x" * 2_000_000)


def _return_no_json(_context: TaskContext) -> Text:
    return Text(text="\ud800")


_PLAIN: Final[dict[str, Callable[[TaskContext], Text]]] = {
    function.__name__.removeprefix("_"): function
    for function in (
        *(_work, _block, _ignore, _crash, _leak),
        *(_save_much, _save_too_much, _return_too_much, _return_no_json),
    )
}


async def _main(url: str, name: str) -> None:
    types = {style: stage_type(name, style) for style in HandlerStyle}
    handlers = [
        Handler(types[HandlerStyle.ASYNC], do_async, concurrency=3),
        Handler(types[HandlerStyle.THREAD], do, style=HandlerStyle.THREAD, concurrency=3),
        Handler(types[HandlerStyle.PROCESS], do, style=HandlerStyle.PROCESS, concurrency=3, memory_limit=200_000_000),
    ]
    async with JobnikClient(url) as client:
        worker = Worker(client, handlers, lease=LEASE, drain_timeout=timedelta(seconds=2))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
        await worker.run()


if __name__ == "__main__":
    configure_logging()
    asyncio.run(_main(*sys.argv[1:]))
