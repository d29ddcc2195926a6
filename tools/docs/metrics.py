"""docs/reference/metrics.md: what manager and workers tell Prometheus."""

from collections.abc import Iterator

from jobnik_sdk import metrics as sdk
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families
from reference_manager.api.metrics import exposition
from reference_manager.domain.states import StageStatus
from reference_manager.engine.census import Census

from tools.docs.markdown import document, table

_INTRODUCTION = """\
Both serve the text format of Prometheus at `/metrics`: the manager on its own port, a worker on its probe port."""

_OF_MANAGER = """\
Counted in the database at every scrape, with explicit zeros; a scrape fails where the database does. Several managers
on one database report the same figures, so take the highest, not the sum. The usual metrics of a Python process come
along."""

_OF_WORKERS = """\
Counted in the process. The `jobnik_worker_…` and `jobnik_producer_…` names without `sdk` say the same as those with it,
for dashboards that follow Jobnik's public guide."""

_HEAD = ("name", "type", "labels", "meaning")
_SUFFIXES = {"counter": "_total", "info": "_info"}

Row = tuple[str, str, str, str]


def page() -> str:
    """The whole page."""
    return document(
        "Metrics",
        _INTRODUCTION,
        f"## The manager's\n\n{_OF_MANAGER}\n\n{table(_HEAD, _of_manager())}",
        f"## A worker's\n\n{_OF_WORKERS}\n\n{table(_HEAD, _of_sdk())}",
    )


def _of_manager() -> Iterator[Row]:
    # One stage, so that every family has a sample to read the labels from.
    census = Census(jobs={}, stages={("thumbnails", StageStatus.PENDING): 1}, tasks={})
    for family in text_string_to_metric_families(exposition(census, ()).decode()):
        yield _row(family.name, family.type, tuple(family.samples[0].labels), family.documentation)


def _of_sdk() -> Iterator[Row]:
    for metric in vars(sdk).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            labels: tuple[str, ...] = vars(metric)["_labelnames"]  # told nowhere else while there are no samples
            yield _row(family.name, family.type, labels, family.documentation)


def _row(name: str, kind: str, labels: tuple[str, ...], meaning: str) -> Row:
    return f"`{name}{_SUFFIXES.get(kind, '')}`", kind, ", ".join(f"`{label}`" for label in labels), meaning
