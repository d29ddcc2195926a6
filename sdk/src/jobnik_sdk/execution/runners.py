"""Chooses the runner for the style of a handler."""

from datetime import timedelta

from jobnik_sdk.execution.coroutines import CoroutineRunner
from jobnik_sdk.execution.handler import AnyHandler, HandlerStyle
from jobnik_sdk.execution.processes.pool import ProcessRunner
from jobnik_sdk.execution.runner import CANCELLATION_TIMEOUT, Runner
from jobnik_sdk.execution.threads import ThreadRunner


def runner_for(handler: AnyHandler, cancellation_timeout: timedelta = CANCELLATION_TIMEOUT) -> Runner:
    """Return the runner for a handler. It abandons a handler that runs `cancellation_timeout` after a cancellation."""
    match handler.style:
        case HandlerStyle.ASYNC:
            return CoroutineRunner(handler, cancellation_timeout)
        case HandlerStyle.THREAD:
            return ThreadRunner(handler, cancellation_timeout)
        case HandlerStyle.PROCESS:
            return ProcessRunner(handler, cancellation_timeout)
