"""Telling the manager what became of a task, so that repeating it does no harm."""

import time
from collections.abc import Iterator
from typing import Final, Literal

import structlog

from jobnik_sdk.errors import IllegalTransitionError, ManagerFailureError, UnexpectedAnswerError, UnreachableError
from jobnik_sdk.http import retries
from jobnik_sdk.http.client import JobnikClient, read_one
from jobnik_sdk.model.definitions import Empty, TaskStatus
from jobnik_sdk.model.entities import Task
from jobnik_sdk.observability import metrics, spans, trace_context
from jobnik_sdk.observability.spans import TracedTask

PartAOutcome = Literal[TaskStatus.COMPLETED, TaskStatus.FAILED]

# An unexpected answer is not the manager's: a proxy on the way has its own troubles, limits or wishes.
_PASSING: Final = (UnreachableError, ManagerFailureError, UnexpectedAnswerError)
_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


async def report_outcome(
    client: JobnikClient, task: TracedTask, stage_type: str, outcome: PartAOutcome, delays: Iterator[float]
) -> None:
    """Report `outcome` until it is accepted, refused for good, or `delays` (seconds between tries) are used up.

    An answer may be lost after the manager has acted. So before a report is repeated, and where it is refused as an
    illegal move, the task is read: if it already is what was to be said, that is success. Without this, a FAILED said
    twice could burn an attempt of the next worker.

    Raises:
        UnreachableError, ManagerFailureError, UnexpectedAnswerError: `delays` are used up; later it may be accepted.
        AnswerError: the report was refused for good.
    """
    started = time.perf_counter()
    result = "failure"
    try:
        with spans.start_settle([stage_type], [task]):
            await _repeat(client, task, outcome, delays)
        result = "success"
    finally:
        metrics.UPDATE_DURATION.labels(stage_type, outcome).observe(time.perf_counter() - started)
        metrics.UPDATES.labels(stage_type, outcome, result).inc()


async def _repeat(client: JobnikClient, task: TracedTask, outcome: PartAOutcome, delays: Iterator[float]) -> None:
    repeated = False
    while True:
        try:
            if not (repeated and await _is_known(client, task, outcome)):
                await _say(client, task, outcome)
        except _PASSING as failure:
            delay = next(delays, None)
            if delay is None:
                raise
            _log.warning("report not delivered yet", task_id=str(task.id), status=outcome, reason=str(failure))
            await retries.pause(failure, "PUT", delay)
            repeated = True
        else:
            return


async def _say(client: JobnikClient, task: TracedTask, outcome: PartAOutcome) -> None:
    path, traceparent = f"/v1/tasks/{task.id}/status", _traceparent(task)
    try:
        await client.request("PUT", path, json={"status": outcome}, traceparent=traceparent, retry=False)
    except IllegalTransitionError:
        if not await _is_known(client, task, outcome):
            raise


async def _is_known(client: JobnikClient, task: TracedTask, outcome: PartAOutcome) -> bool:
    answer = await client.request("GET", f"/v1/tasks/{task.id}", traceparent=_traceparent(task), retry=False)
    current = read_one(Task[Empty, Empty], answer)
    if outcome is TaskStatus.COMPLETED:
        return current.status is TaskStatus.COMPLETED
    return current.attempts > task.attempts


def _traceparent(task: TracedTask) -> str:
    return trace_context.current_traceparent() or trace_context.child_of(task.traceparent)
