"""One handler at work: claims as many tasks as it has free slots, runs them, has them reported."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import structlog
from pydantic import ValidationError

from jobnik_sdk import context as contexts
from jobnik_sdk import metrics, trace
from jobnik_sdk.context import JobInfo, StageInfo, TaskContext
from jobnik_sdk.definitions import EMPTY, Priority
from jobnik_sdk.entities import ClaimedTask
from jobnik_sdk.errors import JobnikError, UnreadableTaskError
from jobnik_sdk.handlers.endings import Cancelled, Completed, Ending, Failed, Snoozed
from jobnik_sdk.handlers.handler import AnyHandler
from jobnik_sdk.handlers.styles import runner_for
from jobnik_sdk.payloads import first_fault
from jobnik_sdk.retries import backoff
from jobnik_sdk.worker.desk import AnyStageType, Claimed, Desk, Settlement
from jobnik_sdk.worker.heart import Held

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger(__name__)


class Station:
    """Claims tasks for one handler and works on them.

    Args:
        handler: What is done with them.
        desk: Where they come from.
        poll_delays: The longest first wait after a claim that brought nothing or failed, and the longest of all.
        can_keep: Whether what is claimed now can be kept: the heart beats.
        on_contact: Called when the manager has answered a claim.
    """

    def __init__(
        self,
        handler: AnyHandler,
        desk: Desk,
        poll_delays: tuple[timedelta, timedelta],
        can_keep: Callable[[], bool],
        on_contact: Callable[[], None],
    ) -> None:
        self._handler = handler
        self._name = handler.stage_type.name
        self._desk = desk
        self._poll_delays = poll_delays
        self._can_keep = can_keep
        self._on_contact = on_contact
        self._runner = runner_for(handler)
        self._news = asyncio.Event()
        self._claiming: asyncio.Task[Sequence[Claimed]] | None = None
        self._stopping = False
        self._slots = handler.concurrency
        self._held: dict[asyncio.Task[None], Held] = {}
        self._empty_claims = 0
        metrics.announce_stage_type(self._name)

    @property
    def held(self) -> Iterable[Held]:
        """The tasks in hand: they run, or their reports are on their way. To be read from any thread."""
        return list(self._held.values())

    async def work(self) -> None:
        """Claim and start attempts until `stop`; those go on behind it."""
        delays = backoff(*self._poll_delays)
        while not self._stopping:
            free = self._free
            if free <= 0:
                await self._wait_for_news()
                continue
            claimed = await self._claim(free)
            for one in claimed or ():
                self._start(one)
            if claimed:
                delays = backoff(*self._poll_delays)
            elif claimed is None or not self._desk.waits:
                await self._wait_for_news(next(delays))

    def stop(self) -> None:
        """Claim no more. A claim that waits at the manager is given up: `Desk.leave` gives back what it may bring."""
        self._stopping = True
        self._news.set()
        if self._claiming is not None and self._desk.waits:
            self._claiming.cancel()

    async def drained(self) -> None:
        """Wait until nothing is in hand."""
        while self._held:
            await asyncio.wait(self._held)

    def cancel(self, reason: str, leases: Iterable[int | None] | None = None) -> None:
        """Ask attempts to end: those under these leases, or all."""
        wanted = None if leases is None else set(leases)
        for task, context in self.held:
            if wanted is None or task.lease_id in wanted:
                context.cancellation.request(reason)

    async def close(self) -> None:
        """Give back threads and processes."""
        await self._runner.close()

    @property
    def _free(self) -> int:
        """How many tasks may be claimed: as many as there are slots, while reports do not pile up behind them."""
        return min(self._slots, 2 * self._handler.concurrency - len(self._held)) if self._can_keep() else 0

    async def _wait_for_news(self, seconds: float = 1.0) -> None:
        self._news.clear()
        if self._stopping:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()

    async def _claim(self, limit: int) -> Sequence[Claimed] | None:
        """Claim; None where the manager is in trouble."""
        started = time.perf_counter()
        status = "error"
        self._claiming = asyncio.create_task(self._desk.claim(self._handler.stage_type, limit))
        try:
            claimed = await self._claiming
        except asyncio.CancelledError:
            if self._stopping and self._claiming.cancelled():
                return ()
            self._claiming.cancel()
            raise
        except JobnikError as error:
            _log.warning(
                "claim failed", stage_type=self._name, error_type=type(error).__name__, error_message=str(error)
            )
            return None
        else:
            status = "claimed" if claimed else "empty"
        finally:
            self._claiming = None
            metrics.DEQUEUE_DURATION.labels(self._name, status).observe(time.perf_counter() - started)
        self._on_contact()
        self._empty_claims = 0 if claimed else self._empty_claims + 1
        metrics.EMPTY_POLLS.labels(self._name).set(self._empty_claims)
        return claimed

    def _start(self, claimed: Claimed) -> None:
        self._slots -= 1
        if isinstance(claimed, UnreadableTaskError):
            self._start_attempt(claimed.task, bare_context_of(claimed.task), claimed)
            return
        try:
            self._start_attempt(claimed, context_of(claimed, self._handler), None)
        except UnreadableTaskError as error:
            self._start_attempt(claimed, bare_context_of(claimed), error)

    def _start_attempt(
        self, task: ClaimedTask[Any, Any], context: TaskContext[Any], unreadable: UnreadableTaskError | None
    ) -> None:
        attempt = asyncio.create_task(self._attempt(task, context, unreadable))
        self._held[attempt] = Held(task, context)
        attempt.add_done_callback(self._end)

    def _end(self, attempt: asyncio.Task[None]) -> None:
        del self._held[attempt]
        self._news.set()

    async def _attempt(
        self, task: ClaimedTask[Any, Any], context: TaskContext[Any], unreadable: UnreadableTaskError | None
    ) -> None:
        """Work on a task and have it reported; nothing that happens to the task is raised."""
        contexts.enter(context)
        started = time.perf_counter()
        with metrics.task_active(self._name):
            if unreadable is None:
                ending = await self._runner.run(task.data, context)
            else:
                ending = Failed(type(unreadable).__name__, str(unreadable), stack="")
        seconds = time.perf_counter() - started
        self._tell(ending, seconds)
        report = asyncio.ensure_future(self._desk.settle(Settlement(task, ending, context.notes.checkpoint)))
        await self._runner.settled(context)
        self._slots += 1
        self._news.set()
        verdict = await report
        if not verdict.accepted:
            _log.warning("report refused", code=verdict.code, reason=verdict.message)

    def _tell(self, ending: Ending, seconds: float) -> None:
        error_type = ending.error_type if isinstance(ending, Failed) else None
        metrics.attempt_ended(self._name, seconds, type(ending).__name__.lower(), error_type)
        match ending:
            case Completed():
                _log.info("task completed", duration_seconds=round(seconds, 6))
            case Failed():
                stack = {"exception": ending.stack} if ending.stack else {}
                _log.error("task failed", error_type=ending.error_type, error_message=ending.message, **stack)
            case Snoozed():
                _log.info("task put off", seconds=ending.delay.total_seconds())
            case Cancelled():
                _log.warning("task cancelled", reason=ending.reason)


def context_of(task: ClaimedTask[Any, Any], handler: AnyHandler) -> TaskContext[Any]:
    """The context of an attempt that begins now, with a span of its own in the task's trace.

    Raises:
        UnreadableTaskError: the stage does not fit the handler's stage type.
    """
    return TaskContext(
        job=_job_of(task),
        stage=_stage_of(task, handler.stage_type),
        task_id=task.id,
        attempt=task.attempt,
        max_attempts=task.max_attempts,
        metadata=task.metadata,
        traceparent=trace.child_of(task.traceparent),
        timeout=handler.limit(task.timeout),
        checkpoint=task.checkpoint,
    )


def bare_context_of(task: ClaimedTask[Any, Any]) -> TaskContext[Any]:
    """The context of an attempt that cannot begin: of a task that does not fit its models."""
    return TaskContext(
        job=_job_of(task),
        stage=StageInfo(task.stage_id, task.stage_type, task.stage.order if task.stage else 0, EMPTY, EMPTY),
        task_id=task.id,
        attempt=task.attempt,
        max_attempts=task.max_attempts,
        metadata=task.metadata,
        traceparent=trace.child_of(task.traceparent),
    )


def _job_of(task: ClaimedTask[Any, Any]) -> JobInfo:
    job = task.job
    if job is None:  # nobody asked for it, since the task cannot be read
        return JobInfo(UUID(int=0), "", Priority.MEDIUM, {}, {})
    return JobInfo(job.id, job.name, job.priority, job.data, job.metadata)


def _stage_of(task: ClaimedTask[Any, Any], stage_type: AnyStageType) -> StageInfo[Any, Any]:
    stage = task.stage
    if stage is None:
        raise UnreadableTaskError("stage", "the manager told nothing of it.", task)
    try:
        data = stage_type.data.model_validate(stage.data)
        metadata = stage_type.metadata.model_validate(stage.metadata)
    except ValidationError as error:
        field, reason = first_fault(error)
        raise UnreadableTaskError(f"stage.{field}", reason, task) from None
    return StageInfo(stage.id, stage.type, stage.order, data, metadata)
