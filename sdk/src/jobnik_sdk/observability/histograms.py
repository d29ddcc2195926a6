"""Histograms for what happens to each task: prometheus_client's take a lock twice for each value, these none."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from typing_extensions import override


class Series:
    """The values of a histogram with these labels. Only one thread may observe; any may read."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value


class SingleWriterHistogram(Collector):
    """A histogram with labels; `bounds` are the upper ones of its buckets, ascending, without the infinite one."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str], bounds: Sequence[float]) -> None:
        self._name: Final = name
        self._documentation = documentation
        self._labels = labels
        self._bounds = bounds
        self._tallies: dict[tuple[str, ...], Series] = {}

    def labels(self, *values: str) -> Series:
        """Return what counts under these labels."""
        return self._tallies.setdefault(values, Series(self._bounds))

    @override
    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labels)
        bounds = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        for values, tally in self._tallies.copy().items():
            buckets = list(zip(bounds, map(float, accumulate(tally.counts)), strict=True))
            family.add_metric(values, buckets, tally.sum)
        return (family,)
