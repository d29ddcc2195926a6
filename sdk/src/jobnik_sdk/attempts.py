"""One attempt at one task: run the handler, say what became of it in the log, the metrics and to the manager."""

import time
from typing import Any, Final

import structlog

from jobnik_sdk import context as contexts
from jobnik_sdk import metrics
from jobnik_sdk.client import JobnikClient
from jobnik_sdk.definitions import TaskStatus
from jobnik_sdk.entities import ClaimedTask
from jobnik_sdk.errors import AnswerError, UnreadableTaskError
from jobnik_sdk.handlers import Failure, Runner
from jobnik_sdk.reports import Outcome, report
from jobnik_sdk.retries import INITIAL_DELAY, MAX_DELAY, backoff

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger(__name__)


async def work_on(client: JobnikClient, runner: Runner, task: ClaimedTask[Any, Any]) -> None:
    """Run the handler on a task and report it; nothing that happens to the task is raised."""
    context = contexts.context_of(task)
    contexts.enter(context)
    started = time.perf_counter()
    with metrics.task_active(task.stage_type):
        failure = await runner.run(task.data, context)
        seconds = time.perf_counter() - started
        metrics.attempt_ended(task.stage_type, seconds, failure.error_type if failure is not None else None)
        if failure is not None:
            _tell_failure(failure)
            await _report(client, task, TaskStatus.FAILED)
        elif await _report(client, task, TaskStatus.COMPLETED):
            _log.info("task completed", duration_seconds=round(seconds, 6))


async def give_up(client: JobnikClient, error: UnreadableTaskError) -> None:
    """Report an attempt as failed that cannot begin, since the task does not fit its models."""
    contexts.enter(contexts.context_of(error.task))
    failure = Failure(type(error).__name__, str(error), traceback=None)
    metrics.attempt_ended(error.task.stage_type, 0.0, failure.error_type)
    _tell_failure(failure)
    await _report(client, error.task, TaskStatus.FAILED)


def _tell_failure(failure: Failure) -> None:
    traceback = {} if failure.traceback is None else {"exception": failure.traceback}
    _log.error("task failed", error_type=failure.error_type, error_message=failure.error_message, **traceback)


async def _report(client: JobnikClient, task: ClaimedTask[Any, Any], outcome: Outcome) -> bool:
    """Report until the manager has decided, and return whether it accepted."""
    try:
        await report(client, task, outcome, backoff(INITIAL_DELAY, MAX_DELAY))
    except AnswerError as refusal:
        _log.error("report refused", status=outcome, code=refusal.code, reason=str(refusal))
        return False
    return True
