"""Prometheus metrics. Labels are stage types, outcomes and error types, never ids, and their values are limited."""

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
from jobnik_sdk.observability.log_writer import lost_lines

VERSION: Final = version("jobnik-sdk")
"""Read once: later, a handler may have changed `sys.path`, or used up all file descriptors."""

_HANDLER_BOUNDS_SECONDS: Final = (0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600)
_WAITING_BOUNDS_SECONDS: Final = (0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600, 21_600, 86_400)

MAX_STAGE_TYPES: Final = 200
MAX_ERROR_TYPES: Final = 50
"""How many error types of one stage type the metrics distinguish."""
OTHER: Final = "other"
"""The label of the stage types and error types beyond these limits."""

TASK_DURATION = SingleWriterHistogram(
    "jobnik_sdk_worker_task_duration_seconds",
    "Duration of attempts, by outcome.",
    ["stage_type", "status"],
    _HANDLER_BOUNDS_SECONDS,
)
TASKS_FAILED = Counter("jobnik_sdk_worker_tasks_failed_total", "Failed attempts.", ["stage_type", "error_type"])
TASK_RETRIES = Counter(
    "jobnik_sdk_worker_task_retries_total", "Failed attempts whose tasks are tried again.", ["stage_type"]
)
TASKS_ACTIVE = Gauge("jobnik_sdk_worker_tasks_active", "Attempts in progress.", ["stage_type"])
SLOTS = Gauge("jobnik_sdk_worker_slots", "Maximum number of concurrent attempts.", ["stage_type"])
DRAINING = Gauge(
    "jobnik_sdk_worker_draining", "1 while a worker drains: it finishes its attempts and claims no more; otherwise 0."
)
TASK_WAITING = SingleWriterHistogram(
    "jobnik_sdk_worker_task_waiting_seconds",
    "Time from when a task became claimable until it was claimed, if the manager reports it.",
    ["stage_type"],
    _WAITING_BOUNDS_SECONDS,
)
LAST_SUCCESS = Gauge(
    "jobnik_sdk_worker_last_success_timestamp_seconds",
    "Time of the last successful attempt; 0 before the first.",
    ["stage_type"],
)
BREAKER_STATE = Gauge(
    "jobnik_sdk_worker_circuit_breaker_state",
    "State of the circuit breaker: 0 closed, 1 half open, 2 open.",
    ["stage_type", "breaker"],
)
BREAKER_OPENS = Counter(
    "jobnik_sdk_worker_circuit_breaker_opens_total",
    "Number of times that the circuit breaker opened.",
    ["stage_type", "breaker"],
)
EMPTY_POLLS = Gauge(
    "jobnik_sdk_worker_consecutive_empty_polls", "Consecutive claims that returned no task.", ["stage_type"]
)
ABANDONED = Counter(
    "jobnik_sdk_worker_handlers_abandoned_total",
    "Handlers that ignored their cancellation. In a coroutine or a thread, each of them keeps its slot until it ends.",
    ["stage_type"],
)
PROCESSES_ENDED = Counter(
    "jobnik_sdk_worker_processes_ended_total",
    "Processes of handlers that ended, by reason: replaced (recycle_after or memory_limit), killed (the handler "
    "ignored its cancellation) or died.",
    ["stage_type", "reason"],
)
LOOP_BLOCKED = Counter(
    "jobnik_sdk_worker_event_loop_blocked_seconds_total",
    "Seconds for which the event loop was blocked, without blocks of less than a second.",
)
UPTIME = Gauge("jobnik_sdk_worker_uptime_seconds", "Seconds since this process loaded the SDK.")
INFO = Info("jobnik_sdk", "Versions of the SDK and of Python.")

DEQUEUE_DURATION = Histogram(
    "jobnik_sdk_consumer_dequeue_duration_seconds", "Duration of claim requests.", ["stage_type", "status"]
)
UPDATE_DURATION = Histogram(
    "jobnik_sdk_consumer_task_update_duration_seconds", "Duration of report requests.", ["stage_type", "status"]
)
UPDATES = Counter(
    "jobnik_sdk_consumer_task_updates_total",
    "Reports, by reported status and by result.",
    ["stage_type", "status", "result"],
)
REPORTS_WAITING = Gauge(
    "jobnik_sdk_worker_reports_waiting", "Reports that the manager has neither accepted nor refused yet."
)
REPORTS_REFUSED = Counter(
    "jobnik_sdk_worker_reports_refused_total",
    "Reports that the manager refused for good, by the code of the refusal.",
    ["stage_type", "code"],
)
LEASES_LOST = Counter(
    "jobnik_sdk_worker_leases_lost_total",
    "Attempts whose lease the manager had ended, because no heartbeat renewed it in time.",
    ["stage_type"],
)
HEARTBEAT_AGE = Gauge(
    "jobnik_sdk_worker_heartbeat_age_seconds",
    "Seconds since the manager last answered a heartbeat; 0 while the worker sends none.",
)
HEARTBEATS_FAILED = Counter("jobnik_sdk_worker_heartbeats_failed_total", "Heartbeats that were not answered.")
HEARTBEATS_LATE = Counter(
    "jobnik_sdk_worker_heartbeats_late_total",
    "Heartbeats that this process sent more than two thirds of a lease after the last answer.",
)

JOB_CREATE_DURATION = Histogram(
    "jobnik_sdk_producer_job_create_duration_seconds", "Duration of requests that create a job."
)
STAGE_CREATE_DURATION = Histogram(
    "jobnik_sdk_producer_stage_create_duration_seconds", "Duration of requests that create a stage."
)
TASK_CREATE_DURATION = Histogram(
    "jobnik_sdk_producer_task_create_duration_seconds", "Duration of requests that create tasks."
)
OPERATIONS = Counter(
    "jobnik_sdk_producer_operations_total", "Operations of producers, by result.", ["operation", "result"]
)

HTTP_DURATION = Histogram(
    "jobnik_sdk_http_request_duration_seconds",
    "Duration of each try of an HTTP request; status_code is `none` if no response arrived.",
    ["method", "status_code", "retried"],
)
HTTP_RETRIES = Counter("jobnik_sdk_http_retries_total", "Retries of HTTP requests.", ["method", "reason"])

GUIDE_JOBS_CREATED = Counter("jobnik_producer_jobs_created_total", "Jobs created.")

_LOADED_AT: Final = time.monotonic()
UPTIME.set_function(lambda: time.monotonic() - _LOADED_AT)
INFO.info({"version": VERSION, "python_version": platform.python_version()})


class _AliasCollector(Collector):
    """Exports values of the metrics above under other names, so that each task is counted only once.

    The names that begin with `jobnik_worker_` are those of Jobnik's public guide.
    """

    @override
    def collect(self) -> Iterable[Metric]:
        (durations,) = TASK_DURATION.collect()
        completed = CounterMetricFamily(
            "jobnik_sdk_worker_tasks_completed", "Successful attempts.", labels=["stage_type"]
        )
        tasks = CounterMetricFamily("jobnik_worker_tasks", "Attempts, by outcome.", labels=["stage_type", "status"])
        seconds = HistogramMetricFamily("jobnik_worker_task_duration_seconds", "Duration of attempts.")
        totals: dict[tuple[str, tuple[tuple[str, str], ...]], float] = defaultdict(float)
        for sample in durations.samples:
            suffix = sample.name.rpartition("_")[2]
            if suffix == "count":
                tasks.add_metric([sample.labels["stage_type"], sample.labels["status"]], sample.value)
                if sample.labels["status"] == "completed":
                    completed.add_metric([sample.labels["stage_type"]], sample.value)
            if suffix in {"count", "sum", "bucket"}:
                others = tuple((name, value) for name, value in sample.labels.items() if name != "status")
                totals[suffix, others] += sample.value
        for (suffix, others), value in totals.items():
            seconds.add_sample(f"{seconds.name}_{suffix}", dict(others), value)
        (active,) = TASKS_ACTIVE.collect()
        active_tasks = GaugeMetricFamily("jobnik_worker_active_tasks", "Attempts in progress.", labels=["stage_type"])
        for sample in active.samples:
            active_tasks.add_metric([sample.labels["stage_type"]], sample.value)
        return completed, tasks, seconds, active_tasks


class _LogCollector(Collector):
    """Exports what the logs count themselves, because handler processes write logs without loading this module."""

    @override
    def collect(self) -> Iterable[Metric]:
        documentation = "Log lines that standard output refused, or did not accept in time."
        yield CounterMetricFamily("jobnik_sdk_worker_log_lines_lost", documentation, value=lost_lines())


ALIASES: Final = _AliasCollector()
LOGS: Final = _LogCollector()
for _collector in (TASK_DURATION, TASK_WAITING, ALIASES, LOGS):
    REGISTRY.register(_collector)


class LabelValues:
    """The values of a label that the application chooses.

    Every value is a separate series, so values beyond the limit are replaced by `other`.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def label(self, value: str) -> str:
        """Return the value, or `other` if it is new and the limit has been reached."""
        if value not in self._known:
            if len(self._known) >= self._limit:
                return OTHER
            self._known.add(value)
        return value


_stage_types: Final = LabelValues(MAX_STAGE_TYPES)


def stage_label(stage_type: str) -> str:
    """Return the value of the label `stage_type`."""
    return _stage_types.label(stage_type)


class StageMetrics:
    """The metrics of one stage type. Their labels are looked up once, which keeps the cost per task low."""

    def __init__(self, stage_type: str) -> None:
        self._stage_type = stage_type
        self._error_types = LabelValues(MAX_ERROR_TYPES)
        self._durations = {
            # Created before the first task, so that rates and alerts start from zero.
            status: TASK_DURATION.labels(stage_type, status)
            for status in ("completed", "failed", "snoozed", "cancelled")
        }
        self._waiting = TASK_WAITING.labels(stage_type)
        self._retries = TASK_RETRIES.labels(stage_type)
        LEASES_LOST.labels(stage_type)
        self._last_success = 0.0
        LAST_SUCCESS.labels(stage_type).set_function(lambda: self._last_success)
        self._slots = SLOTS.labels(stage_type)
        self._empty_polls = EMPTY_POLLS.labels(stage_type)
        self._polls = {status: DEQUEUE_DURATION.labels(stage_type, status) for status in ("claimed", "empty", "error")}
        self.slots = 0
        self.active = 0
        self._slots.set_function(lambda: self.slots)
        TASKS_ACTIVE.labels(stage_type).set_function(lambda: self.active)

    def record_poll(self, status: str, seconds: float, consecutive_empty: int) -> None:
        """Record the duration of a claim, whose status is `claimed`, `empty` or `error`."""
        self._polls[status].observe(seconds)
        self._empty_polls.set(consecutive_empty)

    def record_waits(self, waits: Iterable[float | None]) -> None:
        """Record for how many seconds tasks were claimable before a claim; None if the manager does not report it."""
        observe = self._waiting.observe
        for seconds in waits:
            if seconds is not None:
                observe(seconds)

    def record_attempt(
        self, status: str, seconds: float, error_type: str | None = None, *, retried: bool = False
    ) -> None:
        """Record an attempt.

        Args:
            status: `completed`, `failed`, `snoozed` or `cancelled`.
            seconds: Its duration.
            error_type: The type of the error of a failed attempt.
            retried: Whether the task of a failed attempt is tried again.
        """
        self._durations[status].observe(seconds)
        if retried:
            self._retries.inc()
        if status == "completed":
            self._last_success = time.time()
        elif error_type is not None:
            TASKS_FAILED.labels(self._stage_type, self._error_types.label(error_type)).inc()


def stage_metrics(stage_type: str) -> StageMetrics:
    """Return the metrics of a stage type, which all workers of this process share."""
    return _stage_metrics(stage_label(stage_type))


@cache
def _stage_metrics(label: str) -> StageMetrics:
    return StageMetrics(label)


@contextmanager
def operation(name: str, duration: Histogram | None = None) -> Generator[None]:
    """Count the `with` block as an operation of a producer, and observe how long it takes in `duration`, if given."""
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
