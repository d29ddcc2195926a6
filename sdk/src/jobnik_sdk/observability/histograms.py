"""Histograms for the hot path: without the two locks per observation that prometheus_client's take."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from typing_extensions import override


class Series:
    """The observations of a histogram with one set of label values.

    Only one thread may call `observe`; any thread may read.
    """

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Add an observation."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value


class SingleWriterHistogram(Collector):
    """A histogram with labels, each of whose series is written by a single thread.

    Args:
        name: The name of the metric.
        documentation: Its help text.
        labels: The names of its labels.
        bounds: The upper bounds of its buckets, ascending, without the infinite one.
    """

    def __init__(self, name: str, documentation: str, labels: Sequence[str], bounds: Sequence[float]) -> None:
        self._name: Final = name
        self._documentation = documentation
        self._labels = labels
        self._bounds = bounds
        self._series: dict[tuple[str, ...], Series] = {}

    def labels(self, *values: str) -> Series:
        """Return the series with these label values; the first call creates it."""
        return self._series.setdefault(values, Series(self._bounds))

    @override
    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labels)
        bounds = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        for values, series in self._series.copy().items():
            buckets = list(zip(bounds, map(float, accumulate(series.counts)), strict=True))
            family.add_metric(values, buckets, series.sum)
        return (family,)
