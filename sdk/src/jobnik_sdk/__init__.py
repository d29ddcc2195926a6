"""The Python SDK of Jobnik: define work, create it with a `Producer`, and process it with a `Worker`.

Import everything from here. `jobnik_sdk.errors` shows the exceptions as a tree, and `jobnik_sdk.testing` has tools for
tests. The subpackages are internal and may change in any release.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from jobnik_sdk.errors import (
        AccessError,
        AnswerError,
        Cancelled,
        ConfigurationError,
        DoNotRetry,
        ForbiddenError,
        IdempotencyKeyReusedError,
        IllegalTransitionError,
        InvalidPayloadError,
        InvalidRequestError,
        JobAbortedError,
        JobFailedError,
        JobFinishedError,
        JobnikError,
        JobNotFinishedError,
        JobNotFoundError,
        LostAnswerError,
        ManagerFailureError,
        NotFoundError,
        PayloadTooLargeError,
        RetryLater,
        SettingsError,
        Snooze,
        StageFinishedError,
        StageNotFoundError,
        StageStartedError,
        StatusConflictError,
        StreamError,
        TaskNotFoundError,
        UnauthorizedError,
        UnexpectedAnswerError,
        UnreachableError,
        UnreadableTaskError,
        UnsupportedError,
        WaitTimeoutError,
    )
    from jobnik_sdk.execution.context import JobInfo, StageInfo, TaskContext
    from jobnik_sdk.execution.handler import Handler, HandlerStyle
    from jobnik_sdk.execution.outcomes import Completed, Failed, Outcome, Released, Snoozed
    from jobnik_sdk.http.circuit_breaker import BreakerPolicy
    from jobnik_sdk.http.client import JobnikClient
    from jobnik_sdk.model.definitions import (
        Empty,
        JobStatus,
        JobType,
        NewStage,
        NewTask,
        Priority,
        RetryPolicy,
        StageStatus,
        StageType,
        TaskDefaults,
        TaskStatus,
    )
    from jobnik_sdk.model.entities import Attempt, ClaimedTask, CreatedJob, Failure, Job, Progress, Stage, Summary, Task
    from jobnik_sdk.observability.logging import configure_logging
    from jobnik_sdk.observability.trace_context import current_traceparent, use_trace
    from jobnik_sdk.producer.blocking.producer import SyncProducer
    from jobnik_sdk.producer.producer import Producer
    from jobnik_sdk.producer.streams import StreamProgress
    from jobnik_sdk.service.process import run
    from jobnik_sdk.worker.consumer import Consumer
    from jobnik_sdk.worker.events import (
        BreakerClosed,
        BreakerOpened,
        Event,
        Listener,
        QueueEmpty,
        TaskCancelled,
        TaskCompleted,
        TaskFailed,
        TaskSnoozed,
        TaskStarted,
    )
    from jobnik_sdk.worker.middleware import CallNext, Middleware
    from jobnik_sdk.worker.settings import WorkerSettings
    from jobnik_sdk.worker.worker import Worker

__all__ = [
    "AccessError",
    "AnswerError",
    "Attempt",
    "BreakerClosed",
    "BreakerOpened",
    "BreakerPolicy",
    "CallNext",
    "Cancelled",
    "ClaimedTask",
    "Completed",
    "ConfigurationError",
    "Consumer",
    "CreatedJob",
    "DoNotRetry",
    "Empty",
    "Event",
    "Failed",
    "Failure",
    "ForbiddenError",
    "Handler",
    "HandlerStyle",
    "IdempotencyKeyReusedError",
    "IllegalTransitionError",
    "InvalidPayloadError",
    "InvalidRequestError",
    "Job",
    "JobAbortedError",
    "JobFailedError",
    "JobFinishedError",
    "JobInfo",
    "JobNotFinishedError",
    "JobNotFoundError",
    "JobStatus",
    "JobType",
    "JobnikClient",
    "JobnikError",
    "Listener",
    "LostAnswerError",
    "ManagerFailureError",
    "Middleware",
    "NewStage",
    "NewTask",
    "NotFoundError",
    "Outcome",
    "PayloadTooLargeError",
    "Priority",
    "Producer",
    "Progress",
    "QueueEmpty",
    "Released",
    "RetryLater",
    "RetryPolicy",
    "SettingsError",
    "Snooze",
    "Snoozed",
    "Stage",
    "StageFinishedError",
    "StageInfo",
    "StageNotFoundError",
    "StageStartedError",
    "StageStatus",
    "StageType",
    "StatusConflictError",
    "StreamError",
    "StreamProgress",
    "Summary",
    "SyncProducer",
    "Task",
    "TaskCancelled",
    "TaskCompleted",
    "TaskContext",
    "TaskDefaults",
    "TaskFailed",
    "TaskNotFoundError",
    "TaskSnoozed",
    "TaskStarted",
    "TaskStatus",
    "UnauthorizedError",
    "UnexpectedAnswerError",
    "UnreachableError",
    "UnreadableTaskError",
    "UnsupportedError",
    "WaitTimeoutError",
    "Worker",
    "WorkerSettings",
    "configure_logging",
    "current_traceparent",
    "run",
    "use_trace",
]

if not TYPE_CHECKING:  # a type checker would accept any name from a module with __getattr__
    # Names are imported on first use, so that a handler's process, which only needs definitions, has no HTTP client.
    _NAMES_BY_MODULE: Final = {
        "errors": (
            "AccessError AnswerError Cancelled ConfigurationError DoNotRetry ForbiddenError "
            "IdempotencyKeyReusedError IllegalTransitionError InvalidPayloadError InvalidRequestError "
            "JobAbortedError JobFailedError JobFinishedError JobnikError JobNotFinishedError JobNotFoundError "
            "LostAnswerError ManagerFailureError NotFoundError PayloadTooLargeError RetryLater SettingsError "
            "Snooze StageFinishedError StageNotFoundError StageStartedError StatusConflictError StreamError "
            "TaskNotFoundError UnauthorizedError UnexpectedAnswerError UnreachableError UnreadableTaskError "
            "UnsupportedError WaitTimeoutError"
        ),
        "execution.context": "JobInfo StageInfo TaskContext",
        "execution.handler": "Handler HandlerStyle",
        "execution.outcomes": "Completed Failed Outcome Released Snoozed",
        "http.circuit_breaker": "BreakerPolicy",
        "http.client": "JobnikClient",
        "model.definitions": (
            "Empty JobStatus JobType NewStage NewTask Priority RetryPolicy StageStatus StageType TaskDefaults "
            "TaskStatus"
        ),
        "model.entities": "Attempt ClaimedTask CreatedJob Failure Job Progress Stage Summary Task",
        "observability.logging": "configure_logging",
        "observability.trace_context": "current_traceparent use_trace",
        "producer.producer": "Producer",
        "producer.streams": "StreamProgress",
        "producer.blocking.producer": "SyncProducer",
        "service.process": "run",
        "worker.settings": "WorkerSettings",
        "worker.consumer": "Consumer",
        "worker.events": (
            "BreakerClosed BreakerOpened Event Listener QueueEmpty TaskCancelled TaskCompleted TaskFailed "
            "TaskSnoozed TaskStarted"
        ),
        "worker.middleware": "CallNext Middleware",
        "worker.worker": "Worker",
    }
    _MODULE_BY_NAME: Final = {name: module for module, names in _NAMES_BY_MODULE.items() for name in names.split()}

    def __getattr__(name: str) -> object:
        if name not in _MODULE_BY_NAME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_MODULE_BY_NAME[name]}"), name)
