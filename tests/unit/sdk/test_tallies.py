"""Histograms of what happens to each task."""

from jobnik_sdk.observability.histograms import SingleWriterHistogram
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import generate_latest


def test_a_scrape_shows_what_prometheus_clients_own_histogram_would() -> None:
    """Buckets, sums and counts are the same, at the bounds too; a child without values has zeros."""
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    bounds = (0.005, 1, 60, 86_400)
    tallies = SingleWriterHistogram("waits_seconds", "Waits.", ["kind", "of"], bounds)
    ours.register(tallies)
    histogram = Histogram("waits_seconds", "Waits.", ["kind", "of"], buckets=bounds, registry=theirs)
    for metric in (tallies, histogram):
        metric.labels("none", "any")
        for value in (0, 0.005, 0.0051, 1, 2, 86_401):
            metric.labels("some", "any").observe(value)
    expected = [line for line in generate_latest(theirs).splitlines() if b"_created" not in line]
    assert generate_latest(ours).splitlines() == expected
