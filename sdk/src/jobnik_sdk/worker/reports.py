"""Reports in part A of the protocol: one task per request, safe to repeat. Also the metrics of all reports."""

import time
from collections.abc import Callable, Iterator
from typing import Final, Literal, TypeAlias

from pydantic import BaseModel

from jobnik_sdk.errors import (
    AnswerError,
    IllegalTransitionError,
    InvalidRequestError,
    NotFoundError,
    StatusConflictError,
    UnreachableError,
)
from jobnik_sdk.http import retries
from jobnik_sdk.http.client import JobnikClient, read_one
from jobnik_sdk.http.connections import Pool
from jobnik_sdk.model.definitions import TaskStatus
from jobnik_sdk.observability import metrics, spans, trace_context
from jobnik_sdk.observability.logging import LimitedWarning, RuntimeLogger
from jobnik_sdk.observability.spans import TracedTask

REFUSALS: Final = (NotFoundError, IllegalTransitionError, InvalidRequestError)
"""Answers that refuse a report for good. Any other error, such as the page of a proxy, may be temporary."""

PartAStatus = Literal[TaskStatus.COMPLETED, TaskStatus.FAILED]

OnRetry: TypeAlias = Callable[[UnreachableError | AnswerError], None]

_log: Final = RuntimeLogger(__name__)


def undelivered_log() -> LimitedWarning:
    """Return the warning that reports must be sent again."""
    return LimitedWarning(_log, "report not delivered, retrying")


async def report_status(  # noqa: PLR0913 what is reported, and how
    client: JobnikClient,
    task: TracedTask,
    stage_type: str,
    status: PartAStatus,
    delays: Iterator[float],
    *,
    on_retry: OnRetry,
) -> None:
    """Report `status` until the manager has accepted or refused it, or `delays` (seconds between tries) is exhausted.

    The response may be lost after the manager has processed the report. For this reason, the task is read before a
    report is repeated, and after the manager has refused it as an illegal transition or because another client changed
    the task meanwhile: if the task already has the status, the report has succeeded; if the attempt is still in
    progress, the report is sent again after a conflict. A FAILED that is sent twice without reading the task could fail
    the next worker's attempt. `on_retry` is called with the reason before a report is repeated because of an error.

    Raises:
        NotFoundError, IllegalTransitionError, InvalidRequestError: the manager refused the report for good.
        UnreachableError, AnswerError: `delays` is exhausted; a later try may succeed.
    """
    started = time.perf_counter()
    accepted = False
    try:
        with spans.start_settle([stage_type], [task]):
            await _report_until_decided(client, task, status, delays, on_retry)
        accepted = True
    finally:
        record_reports(stage_type, status, time.perf_counter() - started, accepted=accepted)


def record_reports(stage_type: str, status: str, seconds: float, *, accepted: bool, count: int = 1) -> None:
    """Record reports in the metrics; `seconds` is the duration of the request that carried all of them."""
    label = metrics.stage_label(stage_type)
    metrics.UPDATE_DURATION.labels(label, status).observe(seconds)
    metrics.UPDATES.labels(label, status, "success" if accepted else "failure").inc(count)


async def _report_until_decided(
    client: JobnikClient,
    task: TracedTask,
    status: PartAStatus,
    delays: Iterator[float],
    on_retry: OnRetry,
) -> None:
    refusal: IllegalTransitionError | None = None
    may_be_recorded = False
    while True:
        try:
            if may_be_recorded:
                current = await _read(client, task)
                if current.has_recorded(status, task):
                    return
                if refusal is not None:
                    await _wait_unless_final(refusal, current, task, delays)
                    refusal = None
            await _put_status(client, task, status)
        except IllegalTransitionError as error:
            if error is refusal:
                raise
            refusal, may_be_recorded = error, True
        except (UnreachableError, AnswerError) as failure:
            delay = None if isinstance(failure, REFUSALS) else next(delays, None)
            if delay is None:
                raise
            on_retry(failure)
            await retries.wait_before_retry(failure, "PUT", delay)
            may_be_recorded = True
        else:
            return


async def _wait_unless_final(
    refusal: IllegalTransitionError, current: "_CurrentTask", task: TracedTask, delays: Iterator[float]
) -> None:
    """Wait before a report is repeated after a conflict; raise `refusal` if the attempt is no longer in progress."""
    delay = next(delays, None) if isinstance(refusal, StatusConflictError) and current.is_attempt_of(task) else None
    if delay is None:
        raise refusal
    await retries.wait_before_retry(refusal, "PUT", delay)


async def _put_status(client: JobnikClient, task: TracedTask, status: PartAStatus) -> None:
    response = await client.request(
        "PUT",
        f"/v1/tasks/{task.id}/status",
        json={"status": status},
        traceparent=_traceparent(task),
        retry=False,
        pool=Pool.REPORTS,
    )
    read_one(_AnyObject, response)  # an empty response may come from a proxy


async def _read(client: JobnikClient, task: TracedTask) -> "_CurrentTask":
    response = await client.request(
        "GET", f"/v1/tasks/{task.id}", traceparent=_traceparent(task), retry=False, pool=Pool.REPORTS
    )
    return read_one(_CurrentTask, response)


class _AnyObject(BaseModel):
    """Any JSON object."""


class _CurrentTask(BaseModel):
    """The fields of a task that show how an attempt ended."""

    status: str
    attempts: int

    def is_attempt_of(self, task: TracedTask) -> bool:
        """Return whether this attempt is still in progress."""
        return self.status == TaskStatus.IN_PROGRESS and self.attempts == task.attempts

    def has_recorded(self, status: PartAStatus, task: TracedTask) -> bool:
        """Return whether the manager has recorded this outcome of the attempt."""
        if status is TaskStatus.COMPLETED:
            return self.status == TaskStatus.COMPLETED
        return self.attempts > task.attempts


def _traceparent(task: TracedTask) -> str:
    return trace_context.current_traceparent() or trace_context.child_of(task.traceparent)
