"""Which runner a handler's style needs."""

from datetime import timedelta

from jobnik_sdk.execution.coroutines import CoroutineRunner
from jobnik_sdk.execution.handler import AnyHandler, HandlerStyle
from jobnik_sdk.execution.processes.pool import ProcessRunner
from jobnik_sdk.execution.runner import GRACE, Runner
from jobnik_sdk.execution.threads import ThreadRunner


def runner_for(handler: AnyHandler, grace: timedelta = GRACE) -> Runner:
    """Return what runs a handler; one that was asked to end has `grace` to do so (default 5 s)."""
    match handler.style:
        case HandlerStyle.ASYNC:
            return CoroutineRunner(handler, grace)
        case HandlerStyle.THREAD:
            return ThreadRunner(handler, grace)
        case HandlerStyle.PROCESS:
            return ProcessRunner(handler, grace)
