"""Histograms that many observations are added to at once."""

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import generate_latest
from reference_manager.engine.histograms import BatchHistogram


def test_exposition_equals_that_of_prometheus_client() -> None:
    """Buckets, sums and counts are the same, at the bounds too; a series without observations has zeros."""
    actual, expected = CollectorRegistry(), CollectorRegistry()
    bounds = (0.01, 1, 60, 86_400)
    histogram = BatchHistogram("waits_seconds", "Waits.", ["kind"], buckets=bounds, registry=actual)
    reference = Histogram("waits_seconds", "Waits.", ["kind"], buckets=bounds, registry=expected)
    for metric in (histogram, reference):
        metric.labels("none")
    batches = ([0, 0.01, 0.011], [], [1, 2, 86_401.5])
    for batch in batches:
        histogram.labels("some").observe(batch)
        for value in batch:
            reference.labels("some").observe(value)
    lines = [line for line in generate_latest(expected).splitlines() if b"_created" not in line]
    assert generate_latest(actual).splitlines() == lines
