"""A histogram that many observations are added to at once. One of prometheus_client takes two locks for each."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector


class Series:
    """The observations with one set of label values. They are added on the event loop."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, values: Sequence[float]) -> None:
        """Add observations."""
        bounds, counts = self._bounds, self.counts
        for value in values:
            counts[bisect_left(bounds, value)] += 1
        self.sum += sum(values)


class BatchHistogram(Collector):
    """A histogram with labels.

    Args:
        name: The name of the metric.
        documentation: Its help text.
        labels: The names of its labels.
        buckets: The upper bounds of its buckets, ascending, without the infinite one.
        registry: Where it is registered.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str],
        *,
        buckets: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._labels = labels
        self._buckets = buckets
        self._series: dict[tuple[str, ...], Series] = {}
        registry.register(self)

    def labels(self, *values: str) -> Series:
        """Return the series with these label values; the first call creates it."""
        return self._series.setdefault(values, Series(self._buckets))

    def collect(self) -> Iterable[Metric]:
        """Return the metric for a scrape, which may run in another thread."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labels)
        bounds = [*(str(float(bound)) for bound in self._buckets), "+Inf"]
        for values, series in self._series.copy().items():
            family.add_metric(values, list(zip(bounds, map(float, accumulate(series.counts)), strict=True)), series.sum)
        return (family,)
