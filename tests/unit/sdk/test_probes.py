"""Health probes and metrics over HTTP."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace

import httpx2
import pytest
from jobnik_sdk.observability import metrics, probes
from jobnik_sdk.observability.probes import Health, ProbeServer
from prometheus_client import REGISTRY

_METRIC_NAMES = {
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
def health() -> Health:
    """The health of a process that has not started yet."""
    return Health()


@pytest.fixture
def server(health: Health) -> Iterator[ProbeServer]:
    """The probe server of the process."""
    with ProbeServer(health, host="127.0.0.1", port=0) as server:
        yield server


def _get(server: ProbeServer, path: str) -> httpx2.Response:
    with httpx2.Client(verify=False) as client:
        return client.get(f"http://127.0.0.1:{server.port}{path}")


def _statuses(server: ProbeServer) -> list[int]:
    return [_get(server, path).status_code for path in _PATHS]


def test_probes_reflect_the_state_of_the_worker(server: ProbeServer, health: Health) -> None:
    """Startup fails until the event loop runs, and readiness until the worker is ready. Liveness never fails here."""
    assert _statuses(server) == [503, 503, 200]
    health.tick()
    worker = _Worker()
    health.watch(worker)
    assert _statuses(server) == [200, 503, 200]
    worker.ready = True
    assert _statuses(server) == [200, 200, 200]


def test_liveness_fails_if_the_event_loop_is_blocked(
    server: ProbeServer, health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a minute without a tick, the probe asks for a restart."""
    now = 1000.0
    monkeypatch.setattr(probes, "time", SimpleNamespace(monotonic=lambda: now))
    health.tick()
    now += 59.0
    assert _get(server, "/livez").status_code == 200
    now += 2.0
    assert _get(server, "/livez").status_code == 503
    assert _get(server, "/livez").text == "event loop blocked for 61 s\n"


def test_liveness_fails_if_the_worker_stops_claiming(server: ProbeServer, health: Health) -> None:
    """A worker with free slots that makes no claims needs a restart, even if its event loop runs."""
    health.tick()
    health.watch(_Worker(ready=True, polling=False))
    assert _statuses(server) == [200, 200, 503]
    assert "no recent claim" in _get(server, "/livez").text


def test_unknown_path_is_404(server: ProbeServer) -> None:
    """Only probes and metrics are served; a query string is ignored."""
    assert _get(server, "/").status_code == 404
    assert _get(server, "/livez?verbose").status_code == 200


def test_metrics_have_the_documented_names(server: ProbeServer) -> None:
    """Every metric that dashboards use exists."""
    metrics.stage_metrics("probed")
    text = _get(server, "/metrics").text
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")}
    assert names >= _METRIC_NAMES
    assert 'jobnik_sdk_worker_tasks_completed_total{stage_type="probed"} 0.0' in text


def test_attempts_are_counted() -> None:
    """An attempt is counted in the metrics of the SDK and in their aliases."""
    stage_metrics = metrics.stage_metrics("counted")
    stage_metrics.record_attempt("completed", 0.2)
    stage_metrics.record_attempt("failed", 0.2, "ValueError")
    read = REGISTRY.get_sample_value
    labels = {"stage_type": "counted"}
    assert read("jobnik_sdk_worker_tasks_completed_total", labels) == 1
    assert read("jobnik_sdk_worker_tasks_failed_total", labels | {"error_type": "ValueError"}) == 1
    assert read("jobnik_worker_tasks_total", labels | {"status": "failed"}) == 1
    assert read("jobnik_sdk_worker_task_duration_seconds_count", labels | {"status": "completed"}) == 1


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # it is multi-threaded, as a worker is
def test_port_is_free_although_a_fork_lives_on() -> None:
    """A fork that a handler made does not keep the port in use after the worker has ended."""
    reading, writing = os.pipe()
    with ProbeServer(Health(), host="127.0.0.1", port=0) as server:
        fork = os.fork()
        if not fork:
            os.write(writing, b"running")
            signal.pause()
    try:
        os.read(reading, 1)
        with ProbeServer(Health(), host="127.0.0.1", port=server.port) as again:
            assert httpx2.get(f"http://127.0.0.1:{again.port}/livez").status_code == 200
    finally:
        os.kill(fork, signal.SIGKILL)
        os.waitpid(fork, 0)
        os.close(reading)
        os.close(writing)
