"""Running plain functions in processes of their own, so that one which dies takes no other task along."""

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import TypeVar, TypeVarTuple

from jobnik_sdk import logging

AnswerT = TypeVar("AnswerT")
ArgumentTs = TypeVarTuple("ArgumentTs")


class ProcessDiedError(Exception):
    """The handler's process ended in the middle of a task."""


class Processes:
    """As many processes as there are calls at the same time; they are spawned when first needed and used again.

    Each is a pool of one, since a pool of several gives up all of its calls when one process dies.
    """

    def __init__(self) -> None:
        self._idle: list[ProcessPoolExecutor] = []

    async def call(self, function: Callable[[*ArgumentTs], AnswerT], *arguments: *ArgumentTs) -> AnswerT:
        """Call a picklable function with picklable arguments.

        Raises:
            ProcessDiedError: the process died; the next call gets a new one.
        """
        pool, answer = self._submit(function, *arguments)
        try:
            return await asyncio.wrap_future(answer)
        except BrokenProcessPool as error:
            raise ProcessDiedError(
                "The process ended: killed, out of memory, crashed in native code, or unable to import the handler."
            ) from error
        finally:
            self._idle.append(pool)

    def _submit(
        self, function: Callable[[*ArgumentTs], AnswerT], *arguments: *ArgumentTs
    ) -> tuple[ProcessPoolExecutor, Future[AnswerT]]:
        while self._idle:
            pool = self._idle.pop()
            with suppress(BrokenProcessPool):  # its process died, in its last call or while it had nothing to do
                return pool, pool.submit(function, *arguments)
        pool = _new_pool()
        return pool, pool.submit(function, *arguments)

    async def close(self) -> None:
        """Let all processes end, after the calls that they are in."""
        for pool in self._idle:
            await asyncio.to_thread(pool.shutdown)
        self._idle.clear()


def _new_pool() -> ProcessPoolExecutor:
    # Spawned, not forked: a fork would copy the event loop's threads and locks in whatever state they are.
    return ProcessPoolExecutor(
        max_workers=1,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_prepare,
        initargs=(logging.configured_level(),),
    )


def _prepare(log_level: str | None) -> None:
    # A signal for the whole process group is the parent's to answer: it lets running tasks finish.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if log_level is not None:
        logging.configure_logging(log_level)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
