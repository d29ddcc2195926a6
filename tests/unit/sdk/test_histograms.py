"""Histograms with a single writer."""

from jobnik_sdk.observability.histograms import SingleWriterHistogram
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import generate_latest


def test_exposition_equals_that_of_prometheus_client() -> None:
    """Buckets, sums and counts are the same, at the bounds too; a series without observations has zeros."""
    actual, expected = CollectorRegistry(), CollectorRegistry()
    bounds = (0.005, 1, 60, 86_400)
    histogram = SingleWriterHistogram("waits_seconds", "Waits.", ["kind", "of"], bounds)
    actual.register(histogram)
    reference = Histogram("waits_seconds", "Waits.", ["kind", "of"], buckets=bounds, registry=expected)
    for metric in (histogram, reference):
        metric.labels("none", "any")
        for value in (0, 0.005, 0.0051, 1, 2, 86_401):
            metric.labels("some", "any").observe(value)
    lines = [line for line in generate_latest(expected).splitlines() if b"_created" not in line]
    assert generate_latest(actual).splitlines() == lines
