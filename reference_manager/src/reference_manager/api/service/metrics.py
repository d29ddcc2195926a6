"""The metrics of ``/metrics``: counts from the database, and the statistics and measurements of this manager."""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from reference_manager.domain.states import JobStatus, Priority, StageStatus, TaskStatus
from reference_manager.engine.engine import ManagerStatistics
from reference_manager.engine.metrics import PREFIX
from reference_manager.engine.statistics import DatabaseStatistics


class _DatabaseCollector(Collector):
    def __init__(self, statistics: DatabaseStatistics) -> None:
        self._statistics = statistics

    def collect(self) -> Iterator[Metric]:
        """Yield every combination of labels, including zeros, so that a rate or an alert never lacks a series."""
        statistics = self._statistics
        types = sorted({stage_type for stage_type, _ in statistics.stages} | {key[0] for key in statistics.tasks})

        jobs = GaugeMetricFamily("jobnik_jobs_by_status", "Jobs by status.", labels=["job_status"])
        for status in JobStatus:
            jobs.add_metric([status], statistics.jobs.get(status, 0))
        yield jobs

        stages = GaugeMetricFamily(
            "jobnik_stages_by_status", "Stages by status and type.", labels=["stage_status", "stage_type"]
        )
        tasks = GaugeMetricFamily(
            "jobnik_tasks_by_status", "Tasks by status and stage type.", labels=["task_status", "stage_type"]
        )
        counts = GaugeMetricFamily(
            "jobnik_tasks_count",
            "Tasks by stage type, job priority and status.",
            labels=["stage_type", "priority", "task_status"],
        )
        oldest = GaugeMetricFamily(
            "jobnik_oldest_waiting_age_seconds",
            "How long the oldest task that can be claimed has been waiting; 0 if none is waiting.",
            labels=["stage_type"],
        )
        for stage_type in types:
            for status in StageStatus:
                stages.add_metric([status, stage_type], statistics.stages.get((stage_type, status), 0))
            for status in TaskStatus:
                by_priority = [statistics.tasks.get((stage_type, priority, status), 0) for priority in Priority]
                tasks.add_metric([status, stage_type], sum(by_priority))
                for priority, count in zip(Priority, by_priority, strict=True):
                    counts.add_metric([stage_type, priority, status], count)
            oldest.add_metric([stage_type], statistics.oldest_waiting.get(stage_type, 0))
        yield from (stages, tasks, counts, oldest)

        lag = GaugeMetricFamily(
            "jobnik_maintenance_lag_seconds",
            "For how long the oldest work of a maintenance task has been due; 0 if there is none.",
            labels=["maintenance_task"],
        )
        for name, seconds in statistics.maintenance_lag.items():
            lag.add_metric([name], seconds)
        yield lag

        dead = GaugeMetricFamily(
            "jobnik_database_dead_tuples",
            "Row versions that vacuum has yet to remove, as estimated by PostgreSQL.",
            labels=["table"],
        )
        for table, count in sorted(statistics.dead_tuples.items()):
            dead.add_metric([table], count)
        yield dead
        yield GaugeMetricFamily(
            "jobnik_database_oldest_xmin_age_transactions",
            "The age, in transactions, of the oldest transaction that keeps vacuum from removing row versions.",
            statistics.oldest_xmin,
        )
        kept = GaugeMetricFamily(
            "jobnik_retention_oldest_ended_age_seconds",
            "For how long the oldest ended job has been kept, as of the last pass of retention; 0 if there is none.",
            labels=["job_status"],
        )
        for status, seconds in statistics.oldest_ended.items():
            kept.add_metric([status], seconds)
        yield kept
        yield GaugeMetricFamily(
            "jobnik_retention_due_jobs",
            "Jobs that the last pass of retention found due, counted up to 10,000 for each name and status.",
            statistics.retention_due,
        )
        yield GaugeMetricFamily(
            "jobnik_retention_clock_behind_seconds",
            "How far the clock of retention is behind that of the database, such as after the latter has jumped ahead.",
            statistics.retention_behind,
        )


class _ManagerCollector(Collector):
    def __init__(self, statistics: ManagerStatistics) -> None:
        self._statistics = statistics

    def collect(self) -> Iterator[Metric]:
        """Yield the current statistics of this manager."""
        statistics = self._statistics
        yield GaugeMetricFamily(f"{PREFIX}claims_waiting", "Claims without a response yet.", statistics.claims_waiting)
        connections = GaugeMetricFamily(
            f"{PREFIX}database_connections", "Open connections of the pool.", labels=["state"]
        )
        connections.add_metric(["used"], statistics.connections_used)
        connections.add_metric(["idle"], statistics.connections_idle)
        yield connections
        yield GaugeMetricFamily(
            f"{PREFIX}notifications_arrive",
            "1 if this manager receives notifications of new work; 0 if waiting claims poll every second instead.",
            statistics.notifications_arrive,
        )


def exposition(database: DatabaseStatistics, manager: ManagerStatistics, process: Iterable[Collector]) -> bytes:
    """Render all metrics in the Prometheus text format, including those of this process."""
    registry = CollectorRegistry(auto_describe=False)
    for collector in (_DatabaseCollector(database), _ManagerCollector(manager), *process):
        registry.register(collector)
    return generate_latest(registry)
