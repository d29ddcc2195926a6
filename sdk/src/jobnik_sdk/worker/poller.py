"""One handler at work: claims as many tasks as it has free slots, runs them, has them reported."""

import asyncio
import contextvars
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final, Literal

import structlog

from jobnik_sdk.errors import JobnikError
from jobnik_sdk.execution.access import Access
from jobnik_sdk.execution.context import TaskContext
from jobnik_sdk.execution.handler import AnyHandler
from jobnik_sdk.execution.outcomes import Completed, Failed, Outcome, Released, Snoozed
from jobnik_sdk.execution.runners import runner_for
from jobnik_sdk.http.circuit_breaker import Breaker, BreakerState, InterlockBreaker
from jobnik_sdk.http.retries import backoff
from jobnik_sdk.observability import metrics
from jobnik_sdk.observability.logging import bind_task, is_enabled
from jobnik_sdk.observability.spans import AttemptSpan, StageSpans
from jobnik_sdk.worker import events
from jobnik_sdk.worker.middleware import Middleware, MiddlewareChain
from jobnik_sdk.worker.task_contexts import TaskContexts
from jobnik_sdk.worker.task_source import Assignment, ReportResult, TaskReport, TaskSource

CONCURRENT_CLAIMS: Final = 2
"""Claims at the same time, while there is a backlog."""
POLL_GRACE_SECONDS: Final = 60.0
"""Seconds within which a station has tried a claim, or seen that it may not, beside the longest wait between two."""

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PollerDependencies:
    """What the stations of a worker share.

    Args:
        source: Where tasks come from.
        poll_delays: The longest first wait after a claim that brought nothing or failed, and the longest of all.
        can_keep: Whether what is claimed now can be kept: the heart beats.
        on_contact: Called when the manager has answered a claim.
        middleware: What surrounds each call of a handler, the outermost first.
        emit: Tells listeners what happens; None if there are none.
        access: How handlers reach the manager.
    """

    source: TaskSource
    poll_delays: tuple[timedelta, timedelta]
    can_keep: Callable[[], bool]
    on_contact: Callable[[], None]
    middleware: Sequence[Middleware]
    emit: events.Listener | None
    access: Access


class Work:
    """A task in hand: it runs, or its report is on its way."""

    __slots__ = ("context", "span", "started", "task")

    def __init__(self, task: Assignment[Any, Any], context: TaskContext[Any], span: AttemptSpan) -> None:
        self.task = task
        self.context = context
        self.span = span
        self.started = time.perf_counter()


class Poller:
    """Claims tasks for one handler and works on them."""

    def __init__(self, handler: AnyHandler, dependencies: PollerDependencies) -> None:
        self._handler = handler
        self._name = handler.stage_type.name
        self._dependencies = dependencies
        self._source = dependencies.source
        self._emit = dependencies.emit
        self._contexts = TaskContexts(handler, dependencies.access)
        self._runner = runner_for(handler)
        self._middleware_chain = (
            MiddlewareChain(dependencies.middleware, self._runner) if dependencies.middleware else None
        )
        self._handling = self._breaker("handler")
        self._dequeuing = self._breaker("dequeue")
        self._meters = metrics.stage_metrics(self._name)
        self._spans = StageSpans(self._name)
        self._around = contextvars.copy_context()
        self._news = asyncio.Event()
        self._claiming: set[asyncio.Task[Sequence[Assignment[Any, Any]]]] = set()
        self._asked = 0
        self._backlog = False
        self._claimed_at = time.monotonic()
        self._stopping = False
        self._closing = False
        self._slots = handler.concurrency
        self._held: dict[Work, None] = {}
        self._empty_claims = 0
        # Putting a line together costs more than all else about a small task.
        self._writes_all = is_enabled(_log, logging.INFO)

    @property
    def held(self) -> list[Work]:
        """The tasks in hand: they run, or their reports are on their way. To be read from any thread."""
        return list(self._held)

    @property
    def polling(self) -> bool:
        """Whether it claims as it should: it has tried lately, or may not claim. To be read from any thread."""
        patience = self._dependencies.poll_delays[1].total_seconds() + POLL_GRACE_SECONDS
        return bool(self._claiming) or self._stopping or time.monotonic() - self._claimed_at < patience

    async def work(self) -> None:
        """Claim and start attempts until `stop`; those go on behind it."""
        self._meters.slots += self._handler.concurrency
        try:
            async with asyncio.TaskGroup() as lanes:
                for number in range(CONCURRENT_CLAIMS):
                    lanes.create_task(self._keep_claiming(first=number == 0))
        finally:
            self._meters.slots -= self._handler.concurrency

    def stop(self) -> None:
        """Claim no more. Cancel waiting claims: `TaskSource.leave` gives back what they may bring."""
        self._stopping = True
        self._news.set()
        if self._source.waits:
            for claim in self._claiming:
                claim.cancel()

    async def drained(self) -> None:
        """Wait until nothing is in hand."""
        while self._held:
            self._news.clear()
            await self._news.wait()

    def cancel(self, reason: str, leases: Iterable[int | None] | None = None) -> None:
        """Ask attempts to end: those under these leases, or all."""
        wanted = None if leases is None else set(leases)
        for work in self.held:
            if wanted is None or work.task.lease_id in wanted:
                work.context.cancellation.request(reason)

    async def close(self) -> None:
        """End what still runs, of which nothing is reported any more, and give back threads and processes."""
        self._closing = True
        await self._runner.close()

    @property
    def _free(self) -> int:
        """How many tasks may be claimed: as many as there are slots, while reports do not pile up behind them."""
        if not self._dependencies.can_keep():
            return 0
        free = min(self._slots, 2 * self._handler.concurrency - len(self._held)) - self._asked
        match max(self._handling.state, self._dequeuing.state):
            case BreakerState.CLOSED:
                return free
            case BreakerState.HALF_OPEN:
                return 0 if self._held or self._asked else min(free, 1)
            case BreakerState.OPEN:
                return 0

    async def _keep_claiming(self, *, first: bool) -> None:
        """Claim for all free slots; while there is a backlog, several do so for a part of them each.

        So tasks are on their way while others are at work. Where the queue is short, one claim waits for all.
        """
        delays = backoff(*self._dependencies.poll_delays)
        part = -(-self._handler.concurrency // CONCURRENT_CLAIMS)
        while not self._stopping:
            free = self._free if first or self._backlog else 0
            if free <= 0:
                if first:
                    self._claimed_at = time.monotonic()  # it is right not to claim
                await self._wait_for_news()
                continue
            limit = min(free, part) if self._backlog else free
            claimed = await self._claim(limit)
            self._note_backlog(whole=claimed is not None and len(claimed) >= limit)
            for task in claimed or ():
                self._start(task)
            if claimed:
                delays = backoff(*self._dependencies.poll_delays)
            elif claimed is None or not self._source.waits:
                await self._wait_for_news(next(delays))

    def _note_backlog(self, *, whole: bool) -> None:
        if whole and not self._backlog:
            self._news.set()
        self._backlog = whole

    async def _wait_for_news(self, seconds: float = 1.0) -> None:
        self._news.clear()
        if self._stopping:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()

    async def _claim(self, limit: int) -> Sequence[Assignment[Any, Any]] | None:
        """Claim; None where the manager is in trouble."""
        started = time.perf_counter()
        status = "error"
        claim = asyncio.create_task(self._fetch(limit))
        self._claiming.add(claim)
        self._asked += limit
        try:
            claimed = await claim
        except asyncio.CancelledError:
            if self._stopping and claim.cancelled():
                return ()
            raise
        except JobnikError as error:
            _log.warning(
                "claim failed", stage_type=self._name, error_type=type(error).__name__, error_message=str(error)
            )
            self._dequeuing.record(success=False)
            return None
        else:
            status = "claimed" if claimed else "empty"
            self._note_queue(empty=not claimed)
        finally:
            self._claiming.discard(claim)
            self._asked -= limit
            self._claimed_at = time.monotonic()
            self._meters.record_poll(status, time.perf_counter() - started, self._empty_claims)
        self._dequeuing.record(success=True)
        self._dependencies.on_contact()
        return claimed

    async def _fetch(self, limit: int) -> Sequence[Assignment[Any, Any]]:
        with self._spans.start_receive() as request:
            claimed = await self._source.claim(self._handler.stage_type, limit)
            request.set_tasks(claimed)
            return claimed

    def _note_queue(self, *, empty: bool) -> None:
        self._empty_claims = self._empty_claims + 1 if empty else 0
        if self._empty_claims == 1 and self._emit is not None:
            self._emit(events.QueueEmpty(self._name))

    def _start(self, task: Assignment[Any, Any]) -> None:
        self._slots -= 1
        self._meters.active += 1
        self._meters.record_wait(task.waited)
        span = self._spans.start_process(task, task.job_id)
        context, fault = self._contexts.of(task, span.traceparent)
        work = Work(task, context, span)
        around = span.context_with_span(self._around)
        around.run(bind_task, context)
        self._held[work] = None
        if self._emit is not None:
            self._emit(events.TaskStarted(context))
        ended, freed = partial(self._ended, work), self._freed
        if fault:
            ended(Failed("UnreadableTaskError", fault, stack=""))
            freed()
        elif self._middleware_chain is not None:
            self._middleware_chain.start(task.data, context, around, ended, freed)
        else:
            self._runner.start(task.data, context, around, ended, freed)

    def _ended(self, work: Work, outcome: Outcome) -> None:
        """An attempt is over: have it reported."""
        seconds = time.perf_counter() - work.started
        kind = type(outcome)
        self._meters.active -= 1
        if kind is Completed:
            self._meters.record_attempt("completed", seconds)
            work.span.end("completed")
            self._handling.record(success=True)
        elif isinstance(outcome, Failed):
            self._meters.record_attempt("failed", seconds, outcome.error_type)
            work.span.end("failed", outcome.error_type, outcome.message, outcome.stack)
            # What no further attempt can help is the task's fault, and says nothing about the next one.
            if outcome.retryable:
                self._handling.record(success=False)
        else:
            status = "snoozed" if kind is Snoozed else "cancelled"
            self._meters.record_attempt(status, seconds)
            work.span.end(status)
        if kind is not Completed or self._writes_all:
            _write(work.context, outcome, seconds)
        if self._emit is not None:
            self._emit(_event(work.context, outcome, seconds))
        if not self._closing:
            report = TaskReport(work.task, self._name, outcome, work.context.state.checkpoint)
            self._source.settle(report, partial(self._decided, work))

    def _freed(self) -> None:
        """Nothing of an attempt runs any more."""
        self._slots += 1
        self._news.set()

    def _decided(self, work: Work, result: ReportResult) -> None:
        """The manager has heard how an attempt ended."""
        del self._held[work]
        self._news.set()
        if not result.accepted:
            _log.warning("report refused", code=result.code, reason=result.message, **work.context.ids)

    def _breaker(self, kind: Literal["handler", "dequeue"]) -> Breaker:
        def changed(state: BreakerState) -> None:
            opened = state is BreakerState.OPEN
            if opened:
                metrics.BREAKER_OPENS.labels(self._name, kind).inc()
                _log.error(
                    "circuit breaker opened: nothing is claimed for a while", breaker=kind, stage_type=self._name
                )
            else:
                _log.info("circuit breaker closed", breaker=kind, stage_type=self._name)
            if self._emit is not None:
                event = events.BreakerOpened if opened else events.BreakerClosed
                self._emit(event(self._name, kind))

        breaker = InterlockBreaker(f"{self._name} {kind}", changed)
        metrics.BREAKER_STATE.labels(self._name, kind).set_function(lambda: breaker.state.value)
        metrics.BREAKER_OPENS.labels(self._name, kind)
        return breaker


def _write(context: TaskContext[Any], outcome: Outcome, seconds: float) -> None:
    """The one line about a task."""
    _, trace_id, span_id, _ = context.traceparent.split("-")
    ids = {**context.ids, "trace_id": trace_id, "span_id": span_id}
    match outcome:
        case Completed():
            _log.info("task completed", duration_seconds=round(seconds, 6), **ids)
        case Failed():
            said = {"error_type": outcome.error_type, "error_message": outcome.message}
            if outcome.retryable and outcome.delay is None:
                stack = {"exception": outcome.stack} if outcome.stack else {}
                _log.error("task failed", **said, **stack, **ids)
            else:  # the handler said so on purpose
                _log.warning("task failed", **said, retryable=outcome.retryable, **ids)
        case Snoozed():
            _log.info("task put off", seconds=outcome.delay.total_seconds(), **ids)
        case Released():
            _log.warning("task cancelled", reason=outcome.reason, **ids)


def _event(context: TaskContext[Any], outcome: Outcome, seconds: float) -> events.Event:
    match outcome:
        case Completed():
            return events.TaskCompleted(context, seconds, outcome.result)
        case Failed():
            return events.TaskFailed(context, seconds, outcome)
        case Snoozed():
            return events.TaskSnoozed(context, seconds, outcome)
        case Released():
            return events.TaskCancelled(context, seconds, outcome.reason)
