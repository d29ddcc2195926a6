"""The loop of a worker: claim a task when a slot is free, run the handler, report what became of it."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final, Generic, Literal, overload

import structlog

from jobnik_sdk import attempts, metrics
from jobnik_sdk.client import JobnikClient
from jobnik_sdk.consumer import Consumer
from jobnik_sdk.definitions import ResultT, StageType, TaskMetadataT, TaskT
from jobnik_sdk.errors import JobnikError, UnreadableTaskError
from jobnik_sdk.handlers.handler import AsyncFunction, Handler, HandlerStyle, PlainFunction
from jobnik_sdk.handlers.styles import runner_for
from jobnik_sdk.retries import backoff

POLL_INITIAL_DELAY: Final = timedelta(seconds=1)
POLL_MAX_DELAY: Final = timedelta(seconds=60)

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger(__name__)


class Worker(Generic[TaskT, ResultT, TaskMetadataT]):
    """Works on the tasks of one stage type until it is stopped.

    It runs up to `concurrency` handlers at the same time (default 1) and claims a task only when one more can start.
    While there are none, or while the manager is in trouble, it waits longer and longer: up to `poll_initial_delay` at
    first (default 1 s), then twice as long, `poll_max_delay` at most (default 60 s), each time a random part of it.

    A handler that raises fails that attempt alone; so does a task whose data does not fit the stage type. A report
    that cannot be delivered is tried again until the manager answers. What a handler returns is checked against the
    stage type's `result`.

    Raises:
        ConfigurationError: `concurrency` is below 1, or the handler does not fit its style.
    """

    @overload
    def __init__(
        self,
        client: JobnikClient,
        stage_type: StageType[TaskT, ResultT, TaskMetadataT, Any, Any],
        handler: AsyncFunction[TaskT, TaskMetadataT, Any, Any, ResultT],
        *,
        concurrency: int = ...,
        style: Literal[HandlerStyle.ASYNC] = ...,
        poll_initial_delay: timedelta = ...,
        poll_max_delay: timedelta = ...,
    ) -> None: ...

    @overload
    def __init__(
        self,
        client: JobnikClient,
        stage_type: StageType[TaskT, ResultT, TaskMetadataT, Any, Any],
        handler: PlainFunction[TaskT, TaskMetadataT, Any, Any, ResultT],
        *,
        concurrency: int = ...,
        style: Literal[HandlerStyle.THREAD, HandlerStyle.PROCESS],
        poll_initial_delay: timedelta = ...,
        poll_max_delay: timedelta = ...,
    ) -> None: ...

    def __init__(  # noqa: PLR0913 the options of a worker belong in one place
        self,
        client: JobnikClient,
        stage_type: StageType[TaskT, ResultT, TaskMetadataT, Any, Any],
        handler: AsyncFunction[TaskT, TaskMetadataT, Any, Any, ResultT]
        | PlainFunction[TaskT, TaskMetadataT, Any, Any, ResultT],
        *,
        concurrency: int = 1,
        style: HandlerStyle = HandlerStyle.ASYNC,
        poll_initial_delay: timedelta = POLL_INITIAL_DELAY,
        poll_max_delay: timedelta = POLL_MAX_DELAY,
    ) -> None:
        self.client = client
        self.stage_type = stage_type
        self.concurrency = concurrency
        self.style = style
        self._consumer = Consumer(client)
        make_handler: Any = Handler  # the overloads above have said which handler fits which style
        self._runner = runner_for(make_handler(stage_type, handler, style=style, concurrency=concurrency))
        self._poll_delays = (poll_initial_delay, poll_max_delay)
        self._slots = asyncio.Semaphore(concurrency)
        self._wake_up = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = False
        self._contacted = False
        self._empty_polls = 0

    @property
    def ready(self) -> bool:
        """Whether the manager has answered once, and the worker has not been told to stop."""
        return self._contacted and not self._stopping

    def stop(self) -> None:
        """Claim no more; `run` returns when the running tasks are finished and reported.

        It may be called at any time, more than once, from a signal handler or another thread; there is no way back.
        """
        self._stopping = True
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: the worker has ended already
                self._loop.call_soon_threadsafe(self._wake_up.set)

    async def run(self) -> None:
        """Work until `stop` is called; cancelled instead, it drops the running tasks and reports none of them."""
        self._loop = asyncio.get_running_loop()
        name = self.stage_type.name
        metrics.announce_stage_type(name)
        _log.info("worker started", stage_type=name, concurrency=self.concurrency, manager=self.client.base_url)
        try:
            async with asyncio.TaskGroup() as running:
                await self._claim_and_start(running)
        finally:
            await self._runner.close()
        _log.info("worker stopped", stage_type=name)

    async def _claim_and_start(self, running: asyncio.TaskGroup) -> None:
        delays = backoff(*self._poll_delays)
        while True:
            await self._slots.acquire()
            if self._stopping:
                return
            # A claim is never interrupted: what it brings while the worker is told to stop is run like any other task.
            work = await self._claim()
            if work is None:
                self._slots.release()
                await self._rest(next(delays))
            else:
                delays = backoff(*self._poll_delays)
                running.create_task(work).add_done_callback(lambda _: self._slots.release())

    async def _claim(self) -> Coroutine[Any, Any, None] | None:
        """Return what there is to do for the next task; None where there is none or the manager is in trouble."""
        name = self.stage_type.name
        try:
            task = await self._consumer.claim(self.stage_type)
        except UnreadableTaskError as error:
            work = attempts.give_up(self.client, error)
        except JobnikError as error:
            _log.warning("claim failed", stage_type=name, error_type=type(error).__name__, error_message=str(error))
            return None
        else:
            work = None if task is None else attempts.work_on(self.client, self._runner, task)
        self._contacted = True
        self._empty_polls = self._empty_polls + 1 if work is None else 0
        metrics.EMPTY_POLLS.labels(name).set(self._empty_polls)
        return work

    async def _rest(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake_up.wait(), seconds)
