"""Traces: a span for each request and each maintenance round, and one trace for everything that belongs to a job."""

import json
from collections.abc import AsyncGenerator, Callable, Generator

import httpx2
import pytest
from reference_manager.domain.commands import NO_TRACE
from reference_manager.store.pool import Database

from tests.support.collector import Collector, ReceivedSpan
from tests.support.protocol import Client
from tests.support.worker import LeasedWorker
from tools.manager import ManagerProcess

Start = Callable[..., ManagerProcess]

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
CALLER = f"00-{TRACE_ID}-b7ad6b7169203331-01"
ERROR = 2


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Generator[Collector]:
    """A collector that receives the spans of a test's managers without delay."""
    with Collector() as listening:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", listening.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        yield listening


@pytest.fixture
async def traced(collector: Collector, start_manager: Start) -> AsyncGenerator[Client]:
    """A client of a manager with tracing."""
    assert collector.url
    async with httpx2.AsyncClient(base_url=start_manager().url, timeout=15) as http:
        yield Client(http)


async def test_a_request_is_a_span(collector: Collector, traced: Client) -> None:
    """The span is named by method and route, has the attributes of HTTP spans, and is a child of the caller's."""
    job = await traced.job()
    path = f"/v1/jobs/{job['id']}"
    await traced.http.get(path, params={"should_return_stages": "true"}, headers={"traceparent": CALLER})
    span = await collector.named("GET /v1/jobs/{jobId}")
    assert (span.kind, span.trace_id, span.parent_id) == ("SERVER", TRACE_ID, "b7ad6b7169203331")
    expected = {
        "http.request.method": "GET",
        "http.route": "/v1/jobs/{jobId}",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "url.path": path,
        "url.query": "should_return_stages=true",
        "server.address": "127.0.0.1",
        "server.port": traced.http.base_url.port,
        "network.protocol.version": "1.1",
    }
    assert {name: span.attributes[name] for name in expected} == expected
    assert span.resource["service.name"] == "jobnik-manager"


async def test_every_kind_of_request_is_a_span(collector: Collector, traced: Client) -> None:
    """HEAD, OPTIONS, refusals and unknown paths are spans too, and only failures of the manager are errors."""
    http = traced.http
    await http.head("/v1/jobs")
    await http.options("/v1/jobs")
    await http.put("/v1/jobs")
    await http.get("/nowhere")
    await http.get("/v1/tasks?unknown=1")
    wanted = {
        ("HEAD /v1/jobs", 200),
        ("OPTIONS", 204),
        ("PUT", 405),  # answered before routing
        ("GET", 404),
        ("GET /v1/tasks", 400),
    }

    def request(span: ReceivedSpan) -> tuple[str, object]:
        return span.name, span.attributes["http.response.status_code"]

    spans = await collector.find(lambda span: span.kind == "SERVER", len(wanted))
    assert {request(span) for span in spans} == wanted
    assert not any(span.status == ERROR for span in spans)


async def test_claims_and_reports_are_spans(collector: Collector, traced: Client) -> None:
    """Claims and reports, which otherwise take the hot path, are traced in both parts of the protocol."""
    await traced.tasks(await traced.stage(await traced.job(), "traced"), 2)
    await traced.settle(await traced.claimed("traced"))
    worker = LeasedWorker(traced.http)
    await worker.complete(*await worker.claim("traced"))
    for name in (
        "PATCH /v1/stages/{stageType}/tasks/dequeue",
        "PUT /v1/tasks/{taskId}/status",
        "POST /v1/stages/{stageType}/tasks/claim",
        "POST /v1/tasks/settle",
    ):
        assert (await collector.named(name)).kind == "SERVER"


async def test_a_job_and_its_parts_share_one_trace(collector: Collector, traced: Client) -> None:
    """A new entity belongs to the trace of its request, or else to the trace of the manager's span."""
    http = traced.http
    job = await traced.job()
    created = await collector.named("POST /v1/jobs")
    assert created.parent_id == ""
    assert job["traceparent"].split("-")[1:3] == [created.trace_id, created.span_id]

    trace = {"traceparent": job["traceparent"], "tracestate": "vendor=1"}
    stage = (await http.post(f"/v1/jobs/{job['id']}/stage", json={"type": "one", "data": {}}, headers=trace)).json()
    (task,) = (await http.post(f"/v1/stages/{stage['id']}/tasks", json=[{"data": {}}], headers=trace)).json()
    assert stage["traceparent"] == task["traceparent"] == job["traceparent"]
    assert stage["tracestate"] == "vendor=1"
    for name in ("POST /v1/jobs/{jobId}/stage", "POST /v1/stages/{stageId}/tasks"):
        span = await collector.named(name)
        assert (span.trace_id, span.parent_id) == (created.trace_id, created.span_id)

    (claimed,) = await LeasedWorker(http).claim("one")
    assert claimed["traceparent"] == claimed["stage"]["traceparent"] == claimed["job"]["traceparent"]
    assert claimed["traceparent"] == job["traceparent"]


@pytest.mark.parametrize("header", [NO_TRACE.traceparent, "nonsense"])
async def test_an_invalid_trace_context_is_ignored(collector: Collector, traced: Client, header: str) -> None:
    """A trace context of zeros or with a wrong format counts as none."""
    answer = await traced.http.post("/v1/jobs", json={"name": "a job", "data": {}}, headers={"traceparent": header})
    span = await collector.named("POST /v1/jobs")
    assert answer.json()["traceparent"].split("-")[1:3] == [span.trace_id, span.span_id]


async def test_a_traceparent_in_the_body_takes_precedence(collector: Collector, traced: Client) -> None:
    """A traceparent in the body overrides the one in the headers."""
    other = CALLER.replace(TRACE_ID, "1" * 32)
    traced.http.headers["traceparent"] = CALLER
    assert (await traced.job(traceparent=other))["traceparent"] == other
    assert (await collector.named("POST /v1/jobs")).trace_id == TRACE_ID


async def test_maintenance_rounds_with_work_are_spans(collector: Collector, traced: Client) -> None:
    """Each maintenance task has its own span with the amount of work; rounds without work have none.

    The sweep of aborted tasks counts the two tasks and the stage that they finish.
    """
    worker = LeasedWorker(traced.http)
    job = await traced.job()
    await traced.tasks(await traced.stage(job, "maintenance"), 2)
    lost, put_off = await worker.claim("maintenance", 2, leaseSeconds=1)
    await worker.settle(
        {"taskId": put_off["id"], "leaseId": put_off["leaseId"], "outcome": "SNOOZED", "delaySeconds": 0.2}
    )
    back = [task["id"] for _ in range(2) for task in await worker.claim("maintenance", waitSeconds=10)]
    assert set(back) == {lost["id"], put_off["id"]}
    await traced.move(job, "ABORTED")
    for name, done in (("lease sweeper", 1), ("delayed tasks", 1), ("aborted tasks", 3), ("counter folding", None)):
        span = await collector.named(name)
        assert (span.kind, span.parent_id) == ("INTERNAL", "")
        assert span.attributes["jobnik.maintenance.done"] == done or (
            done is None and span.attributes["jobnik.maintenance.done"]
        )
    assert len([span for span in collector.spans if span.name == "lease sweeper"]) == 1


async def test_log_lines_contain_their_span(collector: Collector, start_manager: Start, database: Database) -> None:
    """A failure in the log contains the ids of its trace and span, and the span is an error."""
    manager = start_manager()
    async with database.connection() as connection:
        await connection.execute("ALTER TABLE jobs RENAME TO gone")
    async with httpx2.AsyncClient(base_url=manager.url) as http:
        assert (await http.get("/v1/jobs")).status_code == 500
    span = await collector.named("GET /v1/jobs")
    assert (span.status, span.attributes["error.type"]) == (ERROR, "500")
    manager.stop()
    lines = [json.loads(line) for line in manager.log.splitlines() if '"database failed"' in line]
    assert [(line["trace_id"], line["span_id"]) for line in lines] == [(span.trace_id, span.span_id)]
    assert all("trace_id" not in line for line in map(json.loads, manager.log.splitlines()) if "ready" in line["event"])


async def test_the_standard_variables_are_respected(
    collector: Collector, start_manager: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The OTEL variables set names and sampling, and jobs that are not sampled still have a trace."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "another")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    async with httpx2.AsyncClient(base_url=start_manager().url) as http:
        job = await Client(http).job()
        assert job["traceparent"].split("-")[1] != "0" * 32
        assert int(job["traceparent"][-2:], 16) & 1 == 0
        await http.get("/v1/jobs", headers={"traceparent": CALLER})
    span = await collector.named("GET /v1/jobs")
    assert span.resource["service.name"] == "another"
    assert span.resource["deployment.environment.name"] == "test"
    assert {span.name for span in collector.spans} == {"GET /v1/jobs"}


async def test_the_variables_of_the_protocol_are_respected(
    collector: Collector, start_manager: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TELEMETRY_TRACING_URL sets the endpoint, and TELEMETRY_TRACING_ENABLED=false turns tracing off."""
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT")
    monkeypatch.setenv("TELEMETRY_TRACING_URL", f"{collector.url}/v1/traces")
    async with httpx2.AsyncClient(base_url=start_manager().url) as http:
        await http.get("/readiness")
    await collector.named("GET /readiness")
    monkeypatch.setenv("TELEMETRY_TRACING_ENABLED", "false")
    manager = start_manager()
    async with httpx2.AsyncClient(base_url=manager.url) as http:
        assert (await Client(http).job())["traceparent"] == NO_TRACE.traceparent
    manager.stop()
    assert not [span for span in collector.spans if span.name == "POST /v1/jobs"]


async def test_a_manager_that_stops_flushes_its_spans(
    collector: Collector, start_manager: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop sends all collected spans."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")
    manager = start_manager()
    async with httpx2.AsyncClient(base_url=manager.url) as http:
        await http.get("/readiness")
    assert not collector.spans
    assert manager.stop() == 0
    assert "GET /readiness" in {span.name for span in collector.spans}


async def test_a_missing_collector_does_not_delay_the_manager(
    collector: Collector, start_manager: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests are answered as usual, and a stop does not wait for the exporter's half minute."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "20")  # sending a batch is retried for seconds
    manager = start_manager()
    async with httpx2.AsyncClient(base_url=manager.url, timeout=2) as http:
        for _ in range(100):
            assert (await http.get("/liveness")).status_code == 200
    assert manager.stop() == 0
    assert not collector.spans


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("TELEMETRY_TRACING_ENABLED", "perhaps", "--tracing-enabled or TELEMETRY_TRACING_ENABLED"),
        ("TELEMETRY_TRACING_URL", "collector:4317", "--tracing-url or TELEMETRY_TRACING_URL"),
    ],
)
def test_invalid_tracing_settings_are_clear_errors(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    """The message names the flag and the variable, as for all settings."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(RuntimeError) as caught, ManagerProcess():
        pass
    assert message in str(caught.value)
    assert "Traceback" not in str(caught.value)
