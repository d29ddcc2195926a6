"""/metrics: how many jobs, stages and tasks have each status, counted in the database at every scrape."""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from reference_manager.domain.states import JobStatus, Priority, StageStatus, TaskStatus
from reference_manager.engine.census import Census


class _Counted(Collector):
    def __init__(self, census: Census) -> None:
        self._census = census

    def collect(self) -> Iterator[Metric]:
        """Every combination, zeros included, so that a rate or an alert never misses a series."""
        census = self._census
        types = sorted({stage_type for stage_type, _ in census.stages} | {key[0] for key in census.tasks})

        jobs = GaugeMetricFamily("jobnik_jobs_by_status", "Jobs by status.", labels=["job_status"])
        for status in JobStatus:
            jobs.add_metric([status], census.jobs.get(status, 0))
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
        for stage_type in types:
            for status in StageStatus:
                stages.add_metric([status, stage_type], census.stages.get((stage_type, status), 0))
            for status in TaskStatus:
                by_priority = [census.tasks.get((stage_type, priority, status), 0) for priority in Priority]
                tasks.add_metric([status, stage_type], sum(by_priority))
                for priority, count in zip(Priority, by_priority, strict=True):
                    counts.add_metric([stage_type, priority, status], count)
        yield from (stages, tasks, counts)


def exposition(census: Census, process: Iterable[Collector]) -> bytes:
    """A census in the text format of Prometheus, with the metrics of this process."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Counted(census))
    for collector in process:
        registry.register(collector)
    return generate_latest(registry)
