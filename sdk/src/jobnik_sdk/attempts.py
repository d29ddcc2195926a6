"""One attempt at one task: run the handler, say what became of it in the log, the metrics and to the manager."""

import time
from typing import Any, Final
from uuid import UUID

import structlog

from jobnik_sdk import context as contexts
from jobnik_sdk import metrics, trace
from jobnik_sdk.client import JobnikClient
from jobnik_sdk.context import JobInfo, StageInfo, TaskContext
from jobnik_sdk.definitions import EMPTY, Priority, TaskStatus
from jobnik_sdk.entities import ClaimedTask
from jobnik_sdk.errors import AnswerError, UnreadableTaskError
from jobnik_sdk.handlers.endings import Cancelled, Completed, Failed, Snoozed
from jobnik_sdk.handlers.runner import Runner
from jobnik_sdk.reports import Outcome, report
from jobnik_sdk.retries import INITIAL_DELAY, MAX_DELAY, backoff

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger(__name__)


async def work_on(client: JobnikClient, runner: Runner, task: ClaimedTask[Any, Any]) -> None:
    """Run the handler on a task and report it; nothing that happens to the task is raised."""
    context = _context_of(task)
    contexts.enter(context)
    started = time.perf_counter()
    with metrics.task_active(task.stage_type):
        ending = await runner.run(task.data, context)
        seconds = time.perf_counter() - started
        match ending:
            case Completed():
                metrics.attempt_ended(task.stage_type, seconds, None)
                if await _report(client, task, TaskStatus.COMPLETED):
                    _log.info("task completed", duration_seconds=round(seconds, 6))
            case Failed():
                await _fail(client, task, ending, seconds)
            case Snoozed() | Cancelled():  # part A of the protocol can hand nothing back
                await _fail(client, task, Failed(type(ending).__name__, "The task cannot be handed back.", ""), seconds)
    await runner.settled(context)


async def give_up(client: JobnikClient, error: UnreadableTaskError) -> None:
    """Report an attempt as failed that cannot begin, since the task does not fit its models."""
    contexts.enter(_context_of(error.task))
    await _fail(client, error.task, Failed(type(error).__name__, str(error), stack=""), 0.0)


def _context_of(task: ClaimedTask[Any, Any]) -> TaskContext[Any]:
    # Part A hands out a task alone: nobody knows its job here, nor more of its stage.
    return TaskContext(
        job=JobInfo(UUID(int=0), "", Priority.MEDIUM, {}, {}),
        stage=StageInfo(task.stage_id, task.stage_type, 0, EMPTY, EMPTY),
        task_id=task.id,
        attempt=task.attempt,
        max_attempts=task.max_attempts,
        metadata=task.metadata,
        traceparent=trace.child_of(task.traceparent),
    )


async def _fail(client: JobnikClient, task: ClaimedTask[Any, Any], failure: Failed, seconds: float) -> None:
    metrics.attempt_ended(task.stage_type, seconds, failure.error_type)
    stack = {"exception": failure.stack} if failure.stack else {}
    _log.error("task failed", error_type=failure.error_type, error_message=failure.message, **stack)
    await _report(client, task, TaskStatus.FAILED)


async def _report(client: JobnikClient, task: ClaimedTask[Any, Any], outcome: Outcome) -> bool:
    """Report until the manager has decided, and return whether it accepted."""
    try:
        await report(client, task, outcome, backoff(INITIAL_DELAY, MAX_DELAY))
    except AnswerError as refusal:
        _log.error("report refused", status=outcome, code=refusal.code, reason=str(refusal))
        return False
    return True
