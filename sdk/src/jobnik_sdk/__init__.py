"""The SDK of Jobnik: what producers and workers are written with.

A `JobType` and a `StageType` say once what the work is. A `Producer` creates it, a `Worker` does it, and `run` makes a
process of a worker. Errors are in `jobnik_sdk.errors`, settings in `jobnik_sdk.settings`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from jobnik_sdk.client import JobnikClient
    from jobnik_sdk.consumer import Consumer
    from jobnik_sdk.context import JobInfo, StageInfo, TaskContext
    from jobnik_sdk.definitions import (
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
    from jobnik_sdk.entities import Attempt, ClaimedTask, CreatedJob, Failure, Job, Progress, Stage, Summary, Task
    from jobnik_sdk.errors import Cancelled, DoNotRetry, JobnikError, RetryLater, Snooze
    from jobnik_sdk.handlers.handler import Handler, HandlerStyle
    from jobnik_sdk.producer import Producer, StreamProgress
    from jobnik_sdk.service import run
    from jobnik_sdk.worker.worker import Worker

__all__ = [
    "Attempt",
    "Cancelled",
    "ClaimedTask",
    "Consumer",
    "CreatedJob",
    "DoNotRetry",
    "Empty",
    "Failure",
    "Handler",
    "HandlerStyle",
    "Job",
    "JobInfo",
    "JobStatus",
    "JobType",
    "JobnikClient",
    "JobnikError",
    "NewStage",
    "NewTask",
    "Priority",
    "Producer",
    "Progress",
    "RetryLater",
    "RetryPolicy",
    "Snooze",
    "Stage",
    "StageInfo",
    "StageStatus",
    "StageType",
    "StreamProgress",
    "Summary",
    "Task",
    "TaskContext",
    "TaskDefaults",
    "TaskStatus",
    "Worker",
    "run",
]

if not TYPE_CHECKING:  # a type checker would take any name from a module with __getattr__
    # Names are loaded when first used: definitions alone, as in a handler's process, then need no HTTP client.
    _HOMES: Final = {
        "client": ["JobnikClient"],
        "consumer": ["Consumer"],
        "context": ["JobInfo", "StageInfo", "TaskContext"],
        "definitions": [
            *("Empty", "JobStatus", "JobType", "NewStage", "NewTask", "Priority", "RetryPolicy"),
            *("StageStatus", "StageType", "TaskDefaults", "TaskStatus"),
        ],
        "entities": [
            *("Attempt", "ClaimedTask", "CreatedJob", "Failure", "Job", "Progress", "Stage", "Summary", "Task"),
        ],
        "errors": ["Cancelled", "DoNotRetry", "JobnikError", "RetryLater", "Snooze"],
        "handlers.handler": ["Handler", "HandlerStyle"],
        "producer": ["Producer", "StreamProgress"],
        "service": ["run"],
        "worker.worker": ["Worker"],
    }
    _HOME_OF: Final = {name: home for home, names in _HOMES.items() for name in names}

    def __getattr__(name: str) -> object:
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
