"""What a process tells Prometheus; labels are stage types, outcomes and error types, never ids."""

import platform
import time
from collections.abc import Generator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Final

from prometheus_client import Counter, Gauge, Histogram, Info

_HANDLER_SECONDS: Final = (0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600)

TASK_DURATION = Histogram(
    "jobnik_sdk_worker_task_duration_seconds",
    "How long handlers ran.",
    ["stage_type", "status"],
    buckets=_HANDLER_SECONDS,
)
TASKS_COMPLETED = Counter("jobnik_sdk_worker_tasks_completed_total", "Attempts that succeeded.", ["stage_type"])
TASKS_FAILED = Counter("jobnik_sdk_worker_tasks_failed_total", "Attempts that failed.", ["stage_type", "error_type"])
TASKS_ACTIVE = Gauge("jobnik_sdk_worker_tasks_active", "Tasks that are being worked on.", ["stage_type"])
EMPTY_POLLS = Gauge("jobnik_sdk_worker_consecutive_empty_polls", "Polls in a row that found no task.", ["stage_type"])
UPTIME = Gauge("jobnik_sdk_worker_uptime_seconds", "Seconds since this process loaded the SDK.")
INFO = Info("jobnik_sdk", "The versions that this process runs on.")

DEQUEUE_DURATION = Histogram(
    "jobnik_sdk_consumer_dequeue_duration_seconds", "How long claims took.", ["stage_type", "status"]
)
UPDATE_DURATION = Histogram(
    "jobnik_sdk_consumer_task_update_duration_seconds", "How long reports took.", ["stage_type", "status"]
)
UPDATES = Counter(
    "jobnik_sdk_consumer_task_updates_total", "Reports by what they said.", ["stage_type", "status", "result"]
)

JOB_CREATE_DURATION = Histogram("jobnik_sdk_producer_job_create_duration_seconds", "How long creating a job took.")
STAGE_CREATE_DURATION = Histogram(
    "jobnik_sdk_producer_stage_create_duration_seconds", "How long creating a stage took."
)
TASK_CREATE_DURATION = Histogram(
    "jobnik_sdk_producer_task_create_duration_seconds", "How long creating a list of tasks took."
)
OPERATIONS = Counter(
    "jobnik_sdk_producer_operations_total", "What producers asked for, by its end.", ["operation", "result"]
)

HTTP_DURATION = Histogram(
    "jobnik_sdk_http_request_duration_seconds",
    "How long each try of a request took; status_code is `none` where no answer came.",
    ["method", "status_code", "retried"],
)
HTTP_RETRIES = Counter("jobnik_sdk_http_retries_total", "Requests sent again.", ["method", "reason"])

# The public guide names these four; they say the same as those above, for dashboards that follow the guide.
GUIDE_TASKS = Counter("jobnik_worker_tasks_total", "Attempts by their outcome.", ["stage_type", "status"])
GUIDE_TASK_DURATION = Histogram(
    "jobnik_worker_task_duration_seconds", "How long handlers ran.", ["stage_type"], buckets=_HANDLER_SECONDS
)
GUIDE_ACTIVE_TASKS = Gauge("jobnik_worker_active_tasks", "Tasks that are being worked on.", ["stage_type"])
GUIDE_JOBS_CREATED = Counter("jobnik_producer_jobs_created_total", "Jobs that were created.")

_LOADED_AT: Final = time.monotonic()
UPTIME.set_function(lambda: time.monotonic() - _LOADED_AT)
INFO.info({"version": version("jobnik-sdk"), "python_version": platform.python_version()})


def announce_stage_type(stage_type: str) -> None:
    """Show zeros for a stage type before its first task, so that rates and alerts have something to start from."""
    TASKS_COMPLETED.labels(stage_type)
    TASKS_ACTIVE.labels(stage_type)
    EMPTY_POLLS.labels(stage_type)
    GUIDE_ACTIVE_TASKS.labels(stage_type)
    for status in ("completed", "failed"):
        GUIDE_TASKS.labels(stage_type, status)


@contextmanager
def task_active(stage_type: str) -> Generator[None]:
    """Count a task as active within a `with` block."""
    with (
        TASKS_ACTIVE.labels(stage_type).track_inprogress(),
        GUIDE_ACTIVE_TASKS.labels(stage_type).track_inprogress(),
    ):
        yield


def attempt_ended(stage_type: str, seconds: float, status: str, error_type: str | None = None) -> None:
    """Count an attempt that ran for `seconds`: it was `completed`, `failed` by an error, `snoozed` or `cancelled`."""
    TASK_DURATION.labels(stage_type, status).observe(seconds)
    GUIDE_TASK_DURATION.labels(stage_type).observe(seconds)
    GUIDE_TASKS.labels(stage_type, status).inc()
    if status == "completed":
        TASKS_COMPLETED.labels(stage_type).inc()
    elif error_type is not None:
        TASKS_FAILED.labels(stage_type, error_type).inc()


@contextmanager
def operation(name: str, duration: Histogram | None = None) -> Generator[None]:
    """Count what a producer asks for within a `with` block, and observe how long it takes where `duration` is given."""
    started = time.perf_counter()
    try:
        yield
    except BaseException:
        OPERATIONS.labels(name, "failure").inc()
        raise
    else:
        OPERATIONS.labels(name, "success").inc()
    finally:
        if duration is not None:
            duration.observe(time.perf_counter() - started)
