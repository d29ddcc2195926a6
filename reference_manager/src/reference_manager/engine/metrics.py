"""Metrics that this process measures. Each manager counts only its own work, so their metrics can be added up.

Stage types are label values, and clients choose their names. To limit the number of series, only the first hundred
stage types have separate series.
"""

from time import perf_counter
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics

from reference_manager.domain.states import JobStatus, Outcome

PREFIX: Final = "jobnik_manager_"
"""The prefix of metrics that describe one manager, not the database."""
MAX_STAGE_TYPES: Final = 100
OTHER: Final = "other"
"""The label value of all further stage types."""

disable_created_metrics()  # they double the number of series and only repeat process_start_time_seconds

REGISTRY: Final = CollectorRegistry()

CLAIM, COMPLETE, SETTLE = STATEMENTS = ("claim", "complete", "settle")
EXPIRIES = (Outcome.EXPIRED, Outcome.TIMED_OUT)

STATEMENT_DURATION = Histogram(
    f"{PREFIX}statement_duration_seconds",
    "The duration of database statements that serve many claims or reports, without the wait for a connection.",
    ["statement"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=REGISTRY,
)
STATEMENT_TASKS = Histogram(
    f"{PREFIX}statement_tasks",
    "The number of tasks in one statement: claimed tasks, or reported ones.",
    ["statement"],
    buckets=(0, 1, 2, 5, 10, 20, 50, 100, 200, 500),
    registry=REGISTRY,
)
TASK_WAIT = Histogram(
    f"{PREFIX}task_wait_seconds",
    "How long tasks were available before this manager claimed them.",
    ["stage_type"],
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600, 14_400, 86_400),
    registry=REGISTRY,
)
LEASES_EXPIRED = Counter(
    f"{PREFIX}leases_expired_total",
    "Attempts that this manager ended: their lease was not renewed (EXPIRED), or their time limit passed (TIMED_OUT).",
    ["stage_type", "outcome"],
    registry=REGISTRY,
)
LEASES_LOST = Counter(
    f"{PREFIX}leases_lost_total",
    "Reports refused with LEASE_LOST: late reports, or reports from a worker without the lease.",
    registry=REGISTRY,
)
MAINTENANCE_ROUNDS = Counter(
    f"{PREFIX}duty_rounds_total",
    "Rounds of each maintenance task that this manager completed, or skipped because there was no work.",
    ["duty"],
    registry=REGISTRY,
)
MAINTENANCE_FAILURES = Counter(
    f"{PREFIX}duty_failures_total",
    "Rounds of each maintenance task that ended with an error; the next round tries again.",
    ["duty"],
    registry=REGISTRY,
)
RETENTION_DELETED = Counter(
    "jobnik_retention_deleted_total", "Jobs that retention deleted, by status.", ["job_status"], registry=REGISTRY
)
for _status in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.ABORTED):
    RETENTION_DELETED.labels(_status)

REQUESTS_REFUSED = Counter(
    f"{PREFIX}requests_refused_total",
    "Requests refused because of their token: 401 without a valid one, 403 if it may not do this.",
    ["status"],
    registry=REGISTRY,
)
for _status in ("400", "401", "403"):
    REQUESTS_REFUSED.labels(_status)

_stage_types: set[str] = set()


def label(stage_type: str) -> str:
    """Return the label value of a stage type. The first call creates its series, so that they start at zero."""
    if stage_type not in _stage_types:
        if len(_stage_types) == MAX_STAGE_TYPES:
            stage_type = OTHER
        else:
            _stage_types.add(stage_type)
        TASK_WAIT.labels(stage_type)
        for outcome in EXPIRIES:
            LEASES_EXPIRED.labels(stage_type, outcome)
    return stage_type


def observe_statement(statement: str, started: float, tasks: int) -> None:
    """Record a finished statement.

    Args:
        statement: One of ``STATEMENTS``.
        started: When the statement was sent, by ``perf_counter``.
        tasks: The number of tasks in the statement.
    """
    duration, count = _BY_STATEMENT[statement]
    duration.observe(perf_counter() - started)
    count.observe(tasks)


_BY_STATEMENT: Final = {
    statement: (STATEMENT_DURATION.labels(statement), STATEMENT_TASKS.labels(statement)) for statement in STATEMENTS
}
