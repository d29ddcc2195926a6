"""Probes and metrics over HTTP."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace

import httpx2
import pytest
from jobnik_sdk import metrics, probes
from jobnik_sdk.probes import ProbeServer, Vitals
from prometheus_client import REGISTRY

_NAMES_OF_THE_PROTOCOL = {
    "jobnik_sdk_worker_task_duration_seconds",
    "jobnik_sdk_worker_tasks_completed_total",
    "jobnik_sdk_worker_tasks_failed_total",
    "jobnik_sdk_worker_tasks_active",
    "jobnik_sdk_worker_circuit_breaker_state",
    "jobnik_sdk_worker_circuit_breaker_opens_total",
    "jobnik_sdk_worker_consecutive_empty_polls",
    "jobnik_sdk_consumer_dequeue_duration_seconds",
    "jobnik_sdk_consumer_task_update_duration_seconds",
    "jobnik_sdk_consumer_task_updates_total",
    "jobnik_sdk_producer_job_create_duration_seconds",
    "jobnik_sdk_producer_stage_create_duration_seconds",
    "jobnik_sdk_producer_task_create_duration_seconds",
    "jobnik_sdk_producer_operations_total",
    "jobnik_sdk_http_request_duration_seconds",
    "jobnik_sdk_http_retries_total",
    "jobnik_sdk_worker_uptime_seconds",
    "jobnik_sdk_info",
    "jobnik_worker_tasks_total",
    "jobnik_worker_task_duration_seconds",
    "jobnik_worker_active_tasks",
    "jobnik_producer_jobs_created_total",
}


_PATHS = ("/startupz", "/readyz", "/livez")


@dataclass
class _Worker:
    ready: bool = False
    polling: bool = True


@pytest.fixture
def vitals() -> Vitals:
    """A process that has not begun yet."""
    return Vitals()


@pytest.fixture
def server(vitals: Vitals) -> Iterator[ProbeServer]:
    """Its probes."""
    with ProbeServer(vitals, host="127.0.0.1", port=0) as server:
        yield server


def _get(server: ProbeServer, path: str) -> httpx2.Response:
    with httpx2.Client(verify=False) as client:
        return client.get(f"http://127.0.0.1:{server.port}{path}")


def _statuses(server: ProbeServer) -> list[int]:
    return [_get(server, path).status_code for path in _PATHS]


def test_probes_follow_the_worker(server: ProbeServer, vitals: Vitals) -> None:
    """Startup waits for the event loop, readiness for the worker, and a process that is about to begin is alive."""
    assert _statuses(server) == [503, 503, 200]
    vitals.tick()
    worker = _Worker()
    vitals.watch(worker)
    assert _statuses(server) == [200, 503, 200]
    worker.ready = True
    assert _statuses(server) == [200, 200, 200]


def test_event_loop_that_stands_still_is_told(
    server: ProbeServer, vitals: Vitals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process whose event loop has not turned for a minute is to be restarted."""
    now = 1000.0
    monkeypatch.setattr(probes, "time", SimpleNamespace(monotonic=lambda: now))
    vitals.tick()
    now += 59.0
    assert _get(server, "/livez").status_code == 200
    now += 2.0
    assert _get(server, "/livez").status_code == 503
    assert _get(server, "/livez").text == "the event loop has stood still for 61 s\n"


def test_worker_that_claims_no_more_is_told(server: ProbeServer, vitals: Vitals) -> None:
    """A worker that could take tasks and does not ask for any is to be restarted, whatever its event loop does."""
    vitals.tick()
    vitals.watch(_Worker(ready=True, polling=False))
    assert _statuses(server) == [200, 200, 503]
    assert "no task has been asked for" in _get(server, "/livez").text


def test_unknown_path_is_404(server: ProbeServer) -> None:
    """Only the probes and the metrics are served; a query does not matter."""
    assert _get(server, "/").status_code == 404
    assert _get(server, "/livez?verbose").status_code == 200


def test_metrics_have_the_names_of_the_protocol(server: ProbeServer) -> None:
    """Dashboards find every name that they read."""
    metrics.meters_of("probed")
    text = _get(server, "/metrics").text
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")}
    assert names >= _NAMES_OF_THE_PROTOCOL
    assert 'jobnik_sdk_worker_tasks_completed_total{stage_type="probed"} 0.0' in text


def test_attempts_are_counted() -> None:
    """An attempt shows under both families of names."""
    meters = metrics.meters_of("counted")
    meters.ended("completed", 0.2)
    meters.ended("failed", 0.2, "ValueError")
    read = REGISTRY.get_sample_value
    of = {"stage_type": "counted"}
    assert read("jobnik_sdk_worker_tasks_completed_total", of) == 1
    assert read("jobnik_sdk_worker_tasks_failed_total", of | {"error_type": "ValueError"}) == 1
    assert read("jobnik_worker_tasks_total", of | {"status": "failed"}) == 1
    assert read("jobnik_sdk_worker_task_duration_seconds_count", of | {"status": "completed"}) == 1
