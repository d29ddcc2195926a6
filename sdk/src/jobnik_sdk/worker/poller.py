"""The poller of one handler: claims as many tasks as there are free slots, runs them, and submits their reports."""

import asyncio
import contextvars
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final, Literal

from jobnik_sdk.errors import AccessError, JobnikError
from jobnik_sdk.execution.access import Access
from jobnik_sdk.execution.context import TaskContext
from jobnik_sdk.execution.handler import AnyHandler
from jobnik_sdk.execution.outcomes import Completed, Failed, Outcome, Released, Snoozed
from jobnik_sdk.execution.runners import runner_for
from jobnik_sdk.http.circuit_breaker import BreakerPolicy, BreakerState, CircuitBreaker
from jobnik_sdk.http.retries import backoff
from jobnik_sdk.observability import metrics
from jobnik_sdk.observability.logging import RuntimeLogger, bind_task
from jobnik_sdk.observability.spans import StageSpans
from jobnik_sdk.worker import events
from jobnik_sdk.worker.middleware import Middleware, MiddlewareChain
from jobnik_sdk.worker.refusals import log_refusal
from jobnik_sdk.worker.task_contexts import TaskContexts
from jobnik_sdk.worker.task_source import Assignment, ReportResult, TaskInProgress, TaskReport, TaskSource

CONCURRENT_CLAIMS: Final = 2
"""How many claims run at the same time while there is a backlog."""
MAX_HELD_BACK: Final = 500
"""The maximum number of delayed reports, of locked jobs for example, that do not limit further claims."""
POLL_GRACE_SECONDS: Final = 60.0
"""Seconds without a claim, in addition to the longest poll delay, after which a poller counts as stuck."""
_REFUSAL_ADVICE: Final[Mapping[str, str]] = {
    "LEASE_LOST": "the lease has ended: heartbeats were late, or the job was aborted",
    "TASK_NOT_FOUND": "no action is needed: the job was deleted",
    "VALIDATION_ERROR": "compare the releases of the worker and the manager",
    "ILLEGAL_TASK_STATUS_TRANSITION": "no action is needed: the task has already ended, or its job was aborted",
    "TASK_STATUS_UPDATE_FAILED": "no action is needed: another client has reported the task",
}
"""The codes of refused reports that the metrics distinguish, and what an operator can do."""

_CLAIM_BREAKER: Final = BreakerPolicy()

_log: Final = RuntimeLogger(__name__)


@dataclass(frozen=True, slots=True)
class PollerDependencies:
    """The dependencies that all pollers of a worker share.

    Args:
        source: Where tasks are claimed and reported.
        poll_delays: The maximum of the first delay and of any later one, after a claim that failed or returned no
            tasks.
        may_claim: Returns whether the worker may claim tasks; False while heartbeats fail.
        on_contact: Called when the manager has answered a claim.
        middleware: Runs around each call of a handler, the first outermost.
        emit: Sends an event to the listeners; None if there are no listeners.
        access: How handlers reach the manager.
    """

    source: TaskSource
    poll_delays: tuple[timedelta, timedelta]
    may_claim: Callable[[], bool]
    on_contact: Callable[[], None]
    middleware: Sequence[Middleware]
    emit: events.Listener | None
    access: Access


class Poller:
    """Claims tasks for one handler and runs them."""

    def __init__(self, handler: AnyHandler, dependencies: PollerDependencies) -> None:
        self._handler = handler
        self._stage_type = handler.stage_type.name
        self._label = metrics.stage_label(self._stage_type)
        self._dependencies = dependencies
        self._source = dependencies.source
        self._emit = dependencies.emit
        self._contexts = TaskContexts(handler, dependencies.access)
        self._runner = runner_for(handler)
        self._middleware_chain = (
            MiddlewareChain(dependencies.middleware, self._runner) if dependencies.middleware else None
        )
        self._claim_breaker = self._new_breaker("dequeue", _CLAIM_BREAKER)
        policy = handler.circuit_breaker
        self._handler_breaker = None if policy is None else self._new_breaker("handler", policy)
        if policy is None:
            metrics.BREAKER_STATE.labels(self._label, "handler").set_function(lambda: BreakerState.CLOSED.value)
            metrics.BREAKER_OPENS.labels(self._label, "handler")
        self._metrics = metrics.stage_metrics(self._stage_type)
        self._spans = StageSpans(self._stage_type)
        self._variables = contextvars.copy_context()
        self._changed = asyncio.Event()
        self._claims: set[asyncio.Task[Sequence[Assignment[Any, Any]]]] = set()
        self._requested = 0  # tasks that the claims in progress may return
        self._has_backlog = False
        self._last_claim_at = time.monotonic()
        self._stopping = False
        self._closing = False
        self._free_slots = handler.concurrency
        self._in_progress: dict[TaskInProgress, None] = {}
        self._empty_claims = 0
        # For a small task, building a log line costs more than everything else.
        self._logs_completions = _log.is_enabled(logging.INFO)

    @property
    def tasks_in_progress(self) -> list[TaskInProgress]:
        """The tasks that are running or being reported. May be read from any thread."""
        return list(self._in_progress)

    @property
    def polling(self) -> bool:
        """False if it could have claimed but has not tried to for too long. May be read from any thread."""
        timeout = self._dependencies.poll_delays[1].total_seconds() + POLL_GRACE_SECONDS
        return bool(self._claims) or self._stopping or time.monotonic() - self._last_claim_at < timeout

    async def open(self) -> None:
        """Open the lifespan of the handler; call it before `run`."""
        try:
            await self._runner.open()
        except Exception:
            _log.error("lifespan failed to open", stage_type=self._stage_type)
            raise

    async def run(self) -> None:
        """Claim tasks and start their attempts until `stop` is called; attempts may continue after that."""
        self._metrics.slots += self._handler.concurrency
        try:
            async with asyncio.TaskGroup() as loops:
                for number in range(CONCURRENT_CLAIMS):
                    loops.create_task(self._claim_until_stopped(first=number == 0))
        finally:
            self._metrics.slots -= self._handler.concurrency

    def stop(self) -> None:
        """Stop claiming. Waiting claims are cancelled; `TaskSource.deregister` releases tasks that they return."""
        self._stopping = True
        self._changed.set()
        if self._source.long_polls:
            self.cancel_claims()

    def cancel_claims(self) -> None:
        """Cancel the claims in progress; without leases, a task that one of them has received may be lost."""
        for claim in self._claims:
            claim.cancel()

    async def wait_until_idle(self) -> None:
        """Wait until no task is in progress."""
        while self._in_progress:
            self._changed.clear()
            await self._changed.wait()

    def cancel(self, reason: str, leases: Iterable[int | None] | None = None) -> None:
        """Cancel the attempts with these leases; None: all attempts."""
        selected = None if leases is None else set(leases)
        for running in self.tasks_in_progress:
            if selected is None or running.task.lease_id in selected:
                running.context.cancellation.request(reason)

    def lose(self, leases: Iterable[int]) -> None:
        """Cancel the attempts whose leases the manager has ended before them; each is logged and counted once."""
        lost = set(leases)
        for running in self.tasks_in_progress:
            if running.task.lease_id in lost and not running.ended and not running.lease_lost:
                running.lease_lost = True
                metrics.LEASES_LOST.labels(self._label).inc()
                _log.warning("lease lost", advice=_REFUSAL_ADVICE["LEASE_LOST"], **running.context.ids)
                running.context.cancellation.request("lease lost")

    async def close(self, *, drained: bool) -> None:
        """End attempts that are still running, without reporting them; release threads, processes and the lifespan.

        Args:
            drained: Whether a drain has given the attempts time to end.
        """
        self._closing = True
        await self._runner.close(wait=not drained)

    @property
    def _claim_limit(self) -> int:
        """How many tasks may be claimed now: the free slots, unless too many reports are waiting for delivery."""
        if not self._dependencies.may_claim():
            return 0
        # A job that the manager cannot settle at present must not stop the work on others.
        undelivered = len(self._in_progress) - min(self._source.held_back, MAX_HELD_BACK)
        free = min(self._free_slots, 2 * self._handler.concurrency - undelivered) - self._requested
        state = self._claim_breaker.state
        if self._handler_breaker is not None:
            state = max(state, self._handler_breaker.state)
        match state:
            case BreakerState.CLOSED:
                return free
            case BreakerState.HALF_OPEN:
                return 0 if self._in_progress or self._requested else min(free, 1)
            case BreakerState.OPEN:
                return 0

    async def _claim_until_stopped(self, *, first: bool) -> None:
        """Claim tasks in a loop; without a backlog, only the `first` loop is active.

        With a backlog, every loop claims a part of the free slots, so that further tasks arrive while others run.
        Without one, a single claim waits for all free slots.
        """
        delays = backoff(*self._dependencies.poll_delays)
        share = -(-self._handler.concurrency // CONCURRENT_CLAIMS)
        while not self._stopping:
            free = self._claim_limit if first or self._has_backlog else 0
            if free <= 0:
                if first:
                    self._last_claim_at = time.monotonic()  # not claiming is correct here
                await self._wait_for_change()
                continue
            limit = min(free, share) if self._has_backlog else free
            claimed = await self._claim(limit)
            self._set_backlog(claimed is not None and len(claimed) >= limit)
            if claimed:
                self._metrics.record_waits(task.waited for task in claimed)
                for task in claimed:
                    self._start(task)
                delays = backoff(*self._dependencies.poll_delays)
            elif claimed is None or not self._source.long_polls:
                await self._wait_for_change(next(delays))

    def _set_backlog(self, has_backlog: bool) -> None:  # noqa: FBT001 a setter
        if has_backlog and not self._has_backlog:
            self._changed.set()
        self._has_backlog = has_backlog

    async def _wait_for_change(self, seconds: float = 1.0) -> None:
        self._changed.clear()
        if self._stopping:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    async def _claim(self, limit: int) -> Sequence[Assignment[Any, Any]] | None:
        """Claim up to `limit` tasks; None if the claim failed."""
        started = time.perf_counter()
        status = "error"
        claim = asyncio.create_task(self._send_claim(limit))
        self._claims.add(claim)
        self._requested += limit
        try:
            claimed = await claim
        except asyncio.CancelledError:
            if self._stopping and claim.cancelled():
                return ()
            raise
        except AccessError as error:
            log_refusal(error)  # not a failure of the manager, so the circuit breaker does not count it
            return None
        except JobnikError as error:
            _log.warning(
                "claim failed", stage_type=self._stage_type, error_type=type(error).__name__, error_message=str(error)
            )
            self._claim_breaker.record(success=False)
            return None
        except Exception:  # noqa: BLE001 an error of one claim must not end the worker
            _log.exception("unexpected error while claiming", stage_type=self._stage_type)
            self._claim_breaker.record(success=False)
            return None
        else:
            status = "claimed" if claimed else "empty"
            self._count_empty_claims(empty=not claimed)
        finally:
            self._claims.discard(claim)
            self._requested -= limit
            self._last_claim_at = time.monotonic()
            self._metrics.record_poll(status, time.perf_counter() - started, self._empty_claims)
        self._claim_breaker.record(success=True)
        self._dependencies.on_contact()
        return claimed

    async def _send_claim(self, limit: int) -> Sequence[Assignment[Any, Any]]:
        with self._spans.start_receive() as request:
            claimed = await self._source.claim(self._handler.stage_type, limit)
            request.set_tasks(claimed)
            return claimed

    def _count_empty_claims(self, *, empty: bool) -> None:
        self._empty_claims = self._empty_claims + 1 if empty else 0
        if self._empty_claims == 1 and self._emit is not None:
            self._emit(events.QueueEmpty(self._stage_type))

    def _start(self, task: Assignment[Any, Any]) -> None:
        self._free_slots -= 1
        self._metrics.active += 1
        span = self._spans.start_process(task, task.job_id if self._spans.recorded else "")
        context, validation_error = self._contexts.create(task, span.traceparent)
        running = TaskInProgress(task, context, span)
        variables = span.context_with_span(self._variables)
        variables.run(bind_task, context)
        self._in_progress[running] = None
        if self._emit is not None:
            self._emit(events.TaskStarted(context))
        on_outcome, on_finished = partial(self._on_outcome, running), self._on_finished
        if validation_error:
            on_outcome(Failed("UnreadableTaskError", validation_error, stack=""))
            on_finished()
        elif self._middleware_chain is not None:
            self._middleware_chain.start(task.data, context, variables, on_outcome, on_finished)
        else:
            self._runner.start(task.data, context, variables, on_outcome, on_finished)

    def _on_outcome(self, running: TaskInProgress, outcome: Outcome) -> None:
        """Submit the report of an attempt, and record its outcome."""
        seconds = time.perf_counter() - running.started
        self._metrics.active -= 1
        running.ended = True
        if not self._closing:
            report = TaskReport(running.task, self._stage_type, outcome, running.context.state.checkpoint)
            self._source.submit(report, partial(self._on_report_result, running))
        try:
            self._record_outcome(running, outcome, seconds)
        except Exception:  # noqa: BLE001 an error of an exporter, for example, must not end the worker
            _log.exception("unexpected error after an attempt", **running.context.ids)

    def _record_outcome(self, running: TaskInProgress, outcome: Outcome, seconds: float) -> None:
        """Count, log and emit the outcome of an attempt."""
        kind = type(outcome)
        if kind is Completed:
            self._metrics.record_attempt("completed", seconds)
            running.span.end("completed")
            if self._handler_breaker is not None:
                self._handler_breaker.record(success=True)
        elif isinstance(outcome, Failed):
            retried = running.task.retry_delay(outcome) is not None
            self._metrics.record_attempt("failed", seconds, outcome.error_type, retried=retried)
            running.span.end("failed", outcome.error_type, outcome.message, outcome.stack)
            # RetryLater and DoNotRetry are decisions of the handler about this task, so the next task may succeed.
            if self._handler_breaker is not None and outcome.retryable and outcome.delay is None:
                self._handler_breaker.record(success=False)
        else:
            status = "snoozed" if kind is Snoozed else "cancelled"
            self._metrics.record_attempt(status, seconds)
            running.span.end(status)
        if kind is not Completed or self._logs_completions:
            _log_outcome(running, outcome, seconds)
        if self._emit is not None:
            self._emit(_event_of(running.context, outcome, seconds))

    def _on_finished(self) -> None:
        """Free the slot of an attempt, now that none of its code is running."""
        self._free_slots += 1
        self._changed.set()

    def _on_report_result(self, running: TaskInProgress, result: ReportResult) -> None:
        """Forget a task whose report the manager has accepted or refused."""
        del self._in_progress[running]
        self._changed.set()
        if not result.accepted:
            code = result.code if result.code in _REFUSAL_ADVICE else "other"
            metrics.REPORTS_REFUSED.labels(self._label, code).inc()
            advice = _REFUSAL_ADVICE.get(result.code, "look at the task's attempts and at the manager's log")
            _log.warning(
                "report refused", code=result.code, reason=result.message, advice=advice, **running.context.ids
            )

    def _new_breaker(self, name: Literal["handler", "dequeue"], policy: BreakerPolicy) -> CircuitBreaker:
        def on_change(state: BreakerState) -> None:
            opened = state is BreakerState.OPEN
            if opened:
                metrics.BREAKER_OPENS.labels(self._label, name).inc()
                pause = policy.pause.total_seconds()
                _log.error("circuit breaker opened", breaker=name, stage_type=self._stage_type, pause_seconds=pause)
            else:
                _log.info("circuit breaker closed", breaker=name, stage_type=self._stage_type)
            if self._emit is not None:
                event = events.BreakerOpened if opened else events.BreakerClosed
                self._emit(event(self._stage_type, name))

        concurrency = self._handler.concurrency if name == "handler" else CONCURRENT_CLAIMS
        breaker = CircuitBreaker(on_change, policy, concurrency=concurrency)
        metrics.BREAKER_STATE.labels(self._label, name).set_function(lambda: breaker.state.value)
        metrics.BREAKER_OPENS.labels(self._label, name)
        return breaker


def _log_outcome(running: TaskInProgress, outcome: Outcome, seconds: float) -> None:
    """Log the outcome of an attempt, in a single line; the stack only if the attempt was the last one of its task."""
    context = running.context
    _, trace_id, span_id, _ = context.traceparent.split("-")
    ids = {**context.ids, "trace_id": trace_id, "span_id": span_id}
    match outcome:
        case Completed():
            _log.info("task completed", duration_seconds=round(seconds, 6), **ids)
        case Failed():
            fields: dict[str, Any] = {"error_type": outcome.error_type, "error_message": outcome.message}
            fields |= {"max_attempts": context.max_attempts, "duration_seconds": round(seconds, 6), **ids}
            delay = running.task.retry_delay(outcome)
            if delay is not None:
                _log.warning("task failed", retry_in_seconds=delay.total_seconds(), **fields)
            elif outcome.stack:
                _log.error("task failed", exception=outcome.stack, **fields)
            else:
                _log.error("task failed", **fields)
        case Snoozed():
            _log.info("task snoozed", delay_seconds=outcome.delay.total_seconds(), **ids)
        case Released():
            _log.warning("task cancelled", reason=outcome.reason, **ids)


def _event_of(context: TaskContext[Any], outcome: Outcome, seconds: float) -> events.Event:
    match outcome:
        case Completed():
            return events.TaskCompleted(context, seconds, outcome.result)
        case Failed():
            return events.TaskFailed(context, seconds, outcome)
        case Snoozed():
            return events.TaskSnoozed(context, seconds, outcome)
        case Released():
            return events.TaskCancelled(context, seconds, outcome.reason)
