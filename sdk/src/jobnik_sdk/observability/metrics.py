"""What a process tells Prometheus; labels are stage types, outcomes and error types, never ids."""

import platform
import time
from collections import defaultdict
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from typing import Final

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, Info, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from typing_extensions import override

from jobnik_sdk.observability.histograms import SingleWriterHistogram

_HANDLER_SECONDS: Final = (0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600)
_WAITING_SECONDS: Final = (0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600, 21_600, 86_400)

TASK_DURATION = SingleWriterHistogram(
    "jobnik_sdk_worker_task_duration_seconds", "How long handlers ran.", ["stage_type", "status"], _HANDLER_SECONDS
)
TASKS_FAILED = Counter("jobnik_sdk_worker_tasks_failed_total", "Attempts that failed.", ["stage_type", "error_type"])
TASKS_ACTIVE = Gauge("jobnik_sdk_worker_tasks_active", "Tasks that are being worked on.", ["stage_type"])
SLOTS = Gauge("jobnik_sdk_worker_slots", "How many tasks may be worked on at the same time.", ["stage_type"])
DRAINING = Gauge("jobnik_sdk_worker_draining", "1 while a worker finishes what it has and takes no more, else 0.")
TASK_WAITING = SingleWriterHistogram(
    "jobnik_sdk_worker_task_waiting_seconds",
    "For how long tasks could have been claimed before they were, where the manager tells.",
    ["stage_type"],
    _WAITING_SECONDS,
)
LAST_SUCCESS = Gauge(
    "jobnik_sdk_worker_last_success_timestamp_seconds", "When an attempt succeeded last; 0 before.", ["stage_type"]
)
BREAKER_STATE = Gauge(
    "jobnik_sdk_worker_circuit_breaker_state", "0 closed, 1 half open, 2 open.", ["stage_type", "breaker"]
)
BREAKER_OPENS = Counter(
    "jobnik_sdk_worker_circuit_breaker_opens_total", "How often it opened.", ["stage_type", "breaker"]
)
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

GUIDE_JOBS_CREATED = Counter("jobnik_producer_jobs_created_total", "Jobs that were created.")

_LOADED_AT: Final = time.monotonic()
UPTIME.set_function(lambda: time.monotonic() - _LOADED_AT)
INFO.info({"version": version("jobnik-sdk"), "python_version": platform.python_version()})


class _Derived(Collector):
    """What the metrics above say already, under the names that others know; counting it twice would cost each task.

    The public guide names the `jobnik_worker_...` ones.
    """

    @override
    def collect(self) -> Iterable[Metric]:
        (durations,) = TASK_DURATION.collect()
        completed = CounterMetricFamily(
            "jobnik_sdk_worker_tasks_completed", "Attempts that succeeded.", labels=["stage_type"]
        )
        tasks = CounterMetricFamily(
            "jobnik_worker_tasks", "Attempts by their outcome.", labels=["stage_type", "status"]
        )
        seconds = HistogramMetricFamily("jobnik_worker_task_duration_seconds", "How long handlers ran.")
        summed: dict[tuple[str, tuple[tuple[str, str], ...]], float] = defaultdict(float)
        for sample in durations.samples:
            suffix = sample.name.rpartition("_")[2]
            if suffix == "count":
                tasks.add_metric([sample.labels["stage_type"], sample.labels["status"]], sample.value)
                if sample.labels["status"] == "completed":
                    completed.add_metric([sample.labels["stage_type"]], sample.value)
            if suffix in {"count", "sum", "bucket"}:
                others = tuple((name, value) for name, value in sample.labels.items() if name != "status")
                summed[suffix, others] += sample.value
        for (suffix, others), value in summed.items():
            seconds.add_sample(f"{seconds.name}_{suffix}", dict(others), value)
        (active,) = TASKS_ACTIVE.collect()
        at_work = GaugeMetricFamily(
            "jobnik_worker_active_tasks", "Tasks that are being worked on.", labels=["stage_type"]
        )
        for sample in active.samples:
            at_work.add_metric([sample.labels["stage_type"]], sample.value)
        return completed, tasks, seconds, at_work


DERIVED: Final = _Derived()
for _collector in (TASK_DURATION, TASK_WAITING, DERIVED):
    REGISTRY.register(_collector)


class StageMetrics:
    """What is measured of one stage type's tasks: looking up its labels once makes it cheap for each of them."""

    def __init__(self, stage_type: str) -> None:
        self._stage_type = stage_type
        self._durations = {
            # Zeros before the first task, so that rates and alerts have something to start from.
            status: TASK_DURATION.labels(stage_type, status)
            for status in ("completed", "failed", "snoozed", "cancelled")
        }
        self._waiting = TASK_WAITING.labels(stage_type)
        self._last_success = 0.0
        LAST_SUCCESS.labels(stage_type).set_function(lambda: self._last_success)
        self._slots = SLOTS.labels(stage_type)
        self._empty_polls = EMPTY_POLLS.labels(stage_type)
        self._polls = {status: DEQUEUE_DURATION.labels(stage_type, status) for status in ("claimed", "empty", "error")}
        self.slots = 0
        self.active = 0
        self._slots.set_function(lambda: self.slots)
        TASKS_ACTIVE.labels(stage_type).set_function(lambda: self.active)

    def polled(self, status: str, seconds: float, empty_in_a_row: int) -> None:
        """Count a claim that took so long: it was `claimed`, `empty` or an `error`."""
        self._polls[status].observe(seconds)
        self._empty_polls.set(empty_in_a_row)

    def waited(self, seconds: float | None) -> None:
        """Count for how long a task could have been claimed; None: nobody knows it."""
        if seconds is not None:
            self._waiting.observe(seconds)

    def ended(self, status: str, seconds: float, error_type: str | None = None) -> None:
        """Count an attempt that ran so long, and `completed`, `failed` by an error, was `snoozed` or `cancelled`."""
        self._durations[status].observe(seconds)
        if status == "completed":
            self._last_success = time.time()
        elif error_type is not None:
            TASKS_FAILED.labels(self._stage_type, error_type).inc()


@cache
def stage_metrics(stage_type: str) -> StageMetrics:
    """Return what measures tasks of this stage type, in all workers of this process."""
    return StageMetrics(stage_type)


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
