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

from jobnik_sdk import context as contexts
from jobnik_sdk import hooks, metrics
from jobnik_sdk.access import Access
from jobnik_sdk.breakers import Breaker, BreakerState, InterlockBreaker
from jobnik_sdk.context import TaskContext
from jobnik_sdk.errors import JobnikError
from jobnik_sdk.handlers.endings import Cancelled, Completed, Ending, Failed, Snoozed
from jobnik_sdk.handlers.handler import AnyHandler
from jobnik_sdk.handlers.styles import runner_for
from jobnik_sdk.logging import writes
from jobnik_sdk.retries import backoff
from jobnik_sdk.spans import Processing, StageSpans
from jobnik_sdk.worker.contexts import Contexts
from jobnik_sdk.worker.desk import Assignment, Desk, Settlement, Verdict
from jobnik_sdk.worker.layers import Layers

LANES: Final = 2
"""Claims at the same time, while there is a backlog."""
POLLED_WITHIN: Final = 60.0
"""Seconds within which a station has tried a claim, or seen that it may not, beside the longest wait between two."""

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the stations of a worker share.

    Args:
        desk: Where tasks come from.
        poll_delays: The longest first wait after a claim that brought nothing or failed, and the longest of all.
        can_keep: Whether what is claimed now can be kept: the heart beats.
        on_contact: Called when the manager has answered a claim.
        middleware: What surrounds each call of a handler, the outermost first.
        tell: Tells listeners what happens; None if there are none.
        access: How handlers reach the manager.
    """

    desk: Desk
    poll_delays: tuple[timedelta, timedelta]
    can_keep: Callable[[], bool]
    on_contact: Callable[[], None]
    middleware: Sequence[hooks.Middleware]
    tell: hooks.Listener | None
    access: Access


class Work:
    """A task in hand: it runs, or its report is on its way."""

    __slots__ = ("context", "span", "started", "task")

    def __init__(self, task: Assignment[Any, Any], context: TaskContext[Any], span: Processing) -> None:
        self.task = task
        self.context = context
        self.span = span
        self.started = time.perf_counter()


class Station:
    """Claims tasks for one handler and works on them."""

    def __init__(self, handler: AnyHandler, surroundings: Surroundings) -> None:
        self._handler = handler
        self._name = handler.stage_type.name
        self._surroundings = surroundings
        self._desk = surroundings.desk
        self._tell = surroundings.tell
        self._contexts = Contexts(handler, surroundings.access)
        self._runner = runner_for(handler)
        self._layers = Layers(surroundings.middleware, self._runner) if surroundings.middleware else None
        self._handling = self._breaker("handler")
        self._dequeuing = self._breaker("dequeue")
        self._meters = metrics.meters_of(self._name)
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
        self._writes_all = writes(_log, logging.INFO)

    @property
    def held(self) -> list[Work]:
        """The tasks in hand: they run, or their reports are on their way. To be read from any thread."""
        return list(self._held)

    @property
    def polling(self) -> bool:
        """Whether it claims as it should: it has tried lately, or may not claim. To be read from any thread."""
        patience = self._surroundings.poll_delays[1].total_seconds() + POLLED_WITHIN
        return bool(self._claiming) or self._stopping or time.monotonic() - self._claimed_at < patience

    async def work(self) -> None:
        """Claim and start attempts until `stop`; those go on behind it."""
        self._meters.slots += self._handler.concurrency
        try:
            async with asyncio.TaskGroup() as lanes:
                for number in range(LANES):
                    lanes.create_task(self._keep_claiming(first=number == 0))
        finally:
            self._meters.slots -= self._handler.concurrency

    def stop(self) -> None:
        """Claim no more. A claim that waits at the manager is given up: `Desk.leave` gives back what it may bring."""
        self._stopping = True
        self._news.set()
        if self._desk.waits:
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
        if not self._surroundings.can_keep():
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
        delays = backoff(*self._surroundings.poll_delays)
        part = -(-self._handler.concurrency // LANES)
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
                delays = backoff(*self._surroundings.poll_delays)
            elif claimed is None or not self._desk.waits:
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
            self._meters.polled(status, time.perf_counter() - started, self._empty_claims)
        self._dequeuing.record(success=True)
        self._surroundings.on_contact()
        return claimed

    async def _fetch(self, limit: int) -> Sequence[Assignment[Any, Any]]:
        with self._spans.receiving() as request:
            claimed = await self._desk.claim(self._handler.stage_type, limit)
            request.note(claimed)
            return claimed

    def _note_queue(self, *, empty: bool) -> None:
        self._empty_claims = self._empty_claims + 1 if empty else 0
        if self._empty_claims == 1 and self._tell is not None:
            self._tell(hooks.QueueEmpty(self._name))

    def _start(self, task: Assignment[Any, Any]) -> None:
        self._slots -= 1
        self._meters.active += 1
        self._meters.waited(task.waited)
        span = self._spans.processing(task, task.job_id)
        context, fault = self._contexts.of(task, span.traceparent)
        work = Work(task, context, span)
        around = span.around(self._around)
        around.run(contexts.bind, context)
        self._held[work] = None
        if self._tell is not None:
            self._tell(hooks.TaskStarted(context))
        ended, freed = partial(self._ended, work), self._freed
        if fault:
            ended(Failed("UnreadableTaskError", fault, stack=""))
            freed()
        elif self._layers is not None:
            self._layers.start(task.data, context, around, ended, freed)
        else:
            self._runner.start(task.data, context, around, ended, freed)

    def _ended(self, work: Work, ending: Ending) -> None:
        """An attempt is over: have it reported."""
        seconds = time.perf_counter() - work.started
        kind = type(ending)
        self._meters.active -= 1
        if kind is Completed:
            self._meters.ended("completed", seconds)
            work.span.end("completed")
            self._handling.record(success=True)
        elif isinstance(ending, Failed):
            self._meters.ended("failed", seconds, ending.error_type)
            work.span.end("failed", ending.error_type, ending.message, ending.stack)
            # What no further attempt can help is the task's fault, and says nothing about the next one.
            if ending.retryable:
                self._handling.record(success=False)
        else:
            outcome = "snoozed" if kind is Snoozed else "cancelled"
            self._meters.ended(outcome, seconds)
            work.span.end(outcome)
        if kind is not Completed or self._writes_all:
            _write(work.context, ending, seconds)
        if self._tell is not None:
            self._tell(_event(work.context, ending, seconds))
        if not self._closing:
            settlement = Settlement(work.task, self._name, ending, work.context.notes.checkpoint)
            self._desk.settle(settlement, partial(self._decided, work))

    def _freed(self) -> None:
        """Nothing of an attempt runs any more."""
        self._slots += 1
        self._news.set()

    def _decided(self, work: Work, verdict: Verdict) -> None:
        """The manager has heard how an attempt ended."""
        del self._held[work]
        self._news.set()
        if not verdict.accepted:
            _log.warning("report refused", code=verdict.code, reason=verdict.message, **work.context.ids)

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
            if self._tell is not None:
                event = hooks.BreakerOpened if opened else hooks.BreakerClosed
                self._tell(event(self._name, kind))

        breaker = InterlockBreaker(f"{self._name} {kind}", changed)
        metrics.BREAKER_STATE.labels(self._name, kind).set_function(lambda: breaker.state.value)
        metrics.BREAKER_OPENS.labels(self._name, kind)
        return breaker


def _write(context: TaskContext[Any], ending: Ending, seconds: float) -> None:
    """The one line about a task."""
    _, trace_id, span_id, _ = context.traceparent.split("-")
    ids = {**context.ids, "trace_id": trace_id, "span_id": span_id}
    match ending:
        case Completed():
            _log.info("task completed", duration_seconds=round(seconds, 6), **ids)
        case Failed():
            said = {"error_type": ending.error_type, "error_message": ending.message}
            if ending.retryable and ending.delay is None:
                stack = {"exception": ending.stack} if ending.stack else {}
                _log.error("task failed", **said, **stack, **ids)
            else:  # the handler said so on purpose
                _log.warning("task failed", **said, retryable=ending.retryable, **ids)
        case Snoozed():
            _log.info("task put off", seconds=ending.delay.total_seconds(), **ids)
        case Cancelled():
            _log.warning("task cancelled", reason=ending.reason, **ids)


def _event(context: TaskContext[Any], ending: Ending, seconds: float) -> hooks.Event:
    match ending:
        case Completed():
            return hooks.TaskCompleted(context, seconds, ending.result)
        case Failed():
            return hooks.TaskFailed(context, seconds, ending)
        case Snoozed():
            return hooks.TaskSnoozed(context, seconds, ending)
        case Cancelled():
            return hooks.TaskCancelled(context, seconds, ending.reason)
