"""Reports in part A of the protocol: one task per request, safe to repeat. Also the metrics of all reports."""

import time
from collections.abc import Iterator
from typing import Final, Literal

import structlog

from jobnik_sdk.errors import IllegalTransitionError
from jobnik_sdk.http import retries
from jobnik_sdk.http.client import JobnikClient, read_one
from jobnik_sdk.model.definitions import Empty, TaskStatus
from jobnik_sdk.model.entities import Task
from jobnik_sdk.observability import metrics, spans, trace_context
from jobnik_sdk.observability.spans import TracedTask

PartAStatus = Literal[TaskStatus.COMPLETED, TaskStatus.FAILED]

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger(__name__)


async def report_status(
    client: JobnikClient, task: TracedTask, stage_type: str, status: PartAStatus, delays: Iterator[float]
) -> None:
    """Report `status` until the manager has accepted or refused it, or `delays` (seconds between tries) is exhausted.

    The response may be lost after the manager has processed the report. For this reason, the task is read before a
    report is repeated, and after the manager has refused it as an illegal transition: if the task already has the
    status, the report has succeeded. Otherwise, a FAILED that is sent twice could fail the next worker's attempt.

    Raises:
        UnreachableError, ManagerFailureError, UnexpectedAnswerError: `delays` is exhausted; a later try may succeed.
        AnswerError: the manager refused the report permanently.
    """
    started = time.perf_counter()
    accepted = False
    try:
        with spans.start_settle([stage_type], [task]):
            await _report_until_decided(client, task, status, delays)
        accepted = True
    finally:
        record_reports(stage_type, status, time.perf_counter() - started, accepted=accepted)


def record_reports(stage_type: str, status: str, seconds: float, *, accepted: bool, count: int = 1) -> None:
    """Record reports in the metrics; `seconds` is the duration of the request that carried all of them."""
    label = metrics.stage_label(stage_type)
    metrics.UPDATE_DURATION.labels(label, status).observe(seconds)
    metrics.UPDATES.labels(label, status, "success" if accepted else "failure").inc(count)


async def _report_until_decided(
    client: JobnikClient, task: TracedTask, status: PartAStatus, delays: Iterator[float]
) -> None:
    may_be_recorded = False
    while True:
        try:
            if not (may_be_recorded and await _is_recorded(client, task, status)):
                await _put_status(client, task, status)
        except retries.TRANSIENT_ERRORS as failure:
            delay = next(delays, None)
            if delay is None:
                raise
            _log.warning("report not delivered, retrying", task_id=str(task.id), status=status, reason=str(failure))
            await retries.wait_before_retry(failure, "PUT", delay)
            may_be_recorded = True
        else:
            return


async def _put_status(client: JobnikClient, task: TracedTask, status: PartAStatus) -> None:
    path, traceparent = f"/v1/tasks/{task.id}/status", _traceparent(task)
    try:
        await client.request("PUT", path, json={"status": status}, traceparent=traceparent, retry=False)
    except IllegalTransitionError:
        if not await _is_recorded(client, task, status):
            raise


async def _is_recorded(client: JobnikClient, task: TracedTask, status: PartAStatus) -> bool:
    """Return whether the manager has recorded this outcome of the attempt."""
    response = await client.request("GET", f"/v1/tasks/{task.id}", traceparent=_traceparent(task), retry=False)
    current = read_one(Task[Empty, Empty], response)
    if status is TaskStatus.COMPLETED:
        return current.status is TaskStatus.COMPLETED
    return current.attempts > task.attempts


def _traceparent(task: TracedTask) -> str:
    return trace_context.current_traceparent() or trace_context.child_of(task.traceparent)
