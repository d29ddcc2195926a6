"""docs/reference/metrics.md: the metrics that the manager and workers export to Prometheus."""

from collections.abc import Iterator
from types import ModuleType

from jobnik_sdk.observability import metrics as sdk
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families
from reference_manager.api.service.metrics import exposition
from reference_manager.domain.states import JobStatus, StageStatus
from reference_manager.engine import metrics
from reference_manager.engine.engine import ManagerStatistics
from reference_manager.engine.statistics import DatabaseStatistics

from tools.docs.markdown import document, table

_INTRODUCTION = """\
The manager and workers export metrics at `/metrics`, in the Prometheus text format: the manager on its own port, a
worker on its probe port."""

_OF_DATABASE = """\
These metrics describe the contents of the database. They are read at every scrape, with explicit zeros. If the
database is unavailable, the scrape fails. Several managers on one database report the same values: take the highest,
not the sum."""

_OF_MANAGER = f"""\
These metrics describe what one manager has done since it started; their names begin with `{metrics.PREFIX}`. With
several managers, add them up. The first {metrics.MAX_STAGE_TYPES} stage types have series of their own; all others
count as `{metrics.OTHER}`. [Observability](../explanation/observability.md#metrics) explains what to use them for.
The manager also exports the usual metrics of a Python process."""

_OF_WORKERS = """\
These metrics are counted in the worker's process. The names `jobnik_worker_…` and `jobnik_producer_…` without `sdk`
have the same values as those with it, for dashboards that follow Jobnik's public guide."""

_HEAD = ("name", "type", "labels", "meaning")
_SUFFIXES = {"counter": "_total", "info": "_info"}

Row = tuple[str, str, str, str]


def page() -> str:
    """Return the text of the page."""
    scraped = tuple(_scraped())
    of_manager = [row for row in scraped if row[0].startswith(f"`{metrics.PREFIX}")]
    of_database = [row for row in scraped if row not in of_manager]
    return document(
        "Metrics",
        _INTRODUCTION,
        f"## The database's, from any manager\n\n{_OF_DATABASE}\n\n{table(_HEAD, of_database)}",
        f"## A manager's own\n\n{_OF_MANAGER}\n\n{table(_HEAD, (*of_manager, *_of_module(metrics)))}",
        f"## A worker's\n\n{_OF_WORKERS}\n\n{table(_HEAD, (*_of_module(sdk), *_collected()))}",
    )


def _scraped() -> Iterator[Row]:
    # One value of each kind, so that every family has a sample with labels.
    statistics = DatabaseStatistics(
        jobs={},
        stages={("thumbnails", StageStatus.PENDING): 1},
        tasks={},
        oldest_waiting={},
        maintenance_lag={"delayed tasks": 0},
        dead_tuples={"tasks": 0},
        oldest_xmin=0,
        oldest_ended={JobStatus.COMPLETED: 0},
        retention_due=0,
        retention_behind=0,
    )
    for family in text_string_to_metric_families(exposition(statistics, ManagerStatistics(0, 0, 0, True), ()).decode()):  # noqa: FBT003 - a row
        yield _row(family.name, family.type, tuple(family.samples[0].labels), family.documentation)


def _of_module(module: ModuleType) -> Iterator[Row]:
    for metric in vars(module).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            labels: tuple[str, ...] = vars(metric)["_labelnames"]  # the only source of label names without samples
            yield _row(family.name, family.type, labels, family.documentation)


def _collected() -> Iterator[Row]:
    sdk.stage_metrics("thumbnails")  # creates samples with labels
    for collector in (sdk.TASK_DURATION, sdk.TASK_WAITING, sdk.ALIASES, sdk.LOGS):
        for family in collector.collect():
            labels = tuple(label for label in family.samples[0].labels if label != "le")
            yield _row(family.name, family.type, labels, family.documentation)


def _row(name: str, kind: str, labels: tuple[str, ...], meaning: str) -> Row:
    return f"`{name}{_SUFFIXES.get(kind, '')}`", kind, ", ".join(f"`{label}`" for label in labels), meaning
