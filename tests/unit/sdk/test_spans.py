"""The spans of a worker, as they are exported."""

from collections.abc import Callable, Iterator
from contextvars import copy_context
from typing import Any

import pytest
from jobnik_sdk import ClaimedTask, Empty, StageType
from jobnik_sdk.model.entities import claimed_task_model
from jobnik_sdk.observability import trace_context
from jobnik_sdk.observability.spans import StageSpans, start_settle
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

_ORIGIN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

Task = ClaimedTask[Any, Any]
Claim = Callable[..., Task]


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """An exporter that keeps the spans in memory."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(otel, "get_tracer_provider", lambda: provider)
    yield exporter
    provider.shutdown()


@pytest.fixture
def claim(task_json: Callable[..., dict[str, Any]]) -> Claim:
    """Return a function that creates a claimed task of the type `pictures`."""
    model = claimed_task_model(StageType("pictures", task=Empty))

    def make(**fields: object) -> Task:
        return model.model_validate({"traceparent": _ORIGIN, **task_json(**fields)})

    return make


def _only(exporter: InMemorySpanExporter) -> ReadableSpan:
    (span,) = exporter.get_finished_spans()
    return span


def _linked(span: ReadableSpan) -> list[str]:
    return [trace_context.format_traceparent(link.context) for link in span.links]


def _attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_attempt_is_a_consumer_span_in_the_trace_of_the_task(exporter: InMemorySpanExporter, claim: Claim) -> None:
    """Its parent is the span that created the task, which is linked as well. Its attributes identify the task."""
    job_id = "0190a2a0-0000-7000-8000-000000000001"
    task = claim(attempts=1)
    attempt = StageSpans("pictures").start_process(task, job_id)
    attempt.end("completed")
    span = _only(exporter)
    assert (span.name, span.kind, span.status.status_code) == ("process pictures", SpanKind.CONSUMER, StatusCode.UNSET)
    assert span.parent == trace_context.parse(_ORIGIN)
    assert _linked(span) == [_ORIGIN]
    assert span.context is not None
    assert attempt.traceparent == trace_context.format_traceparent(span.context)
    assert _attributes(span) == {
        "messaging.system": "jobnik",
        "messaging.destination.name": "pictures",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.message.id": str(task.id),
        "messaging.message.conversation_id": job_id,
        "jobnik.stage.id": str(task.stage_id),
        "jobnik.task.attempt": 2,
        "jobnik.task.outcome": "completed",
    }


def test_failed_attempt_is_an_error(exporter: InMemorySpanExporter, claim: Claim) -> None:
    """The span has the type, the message and the stack of the error."""
    StageSpans("pictures").start_process(claim()).end("failed", "ValueError", "no picture", "a stack")
    span = _only(exporter)
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "no picture")
    assert _attributes(span)["error.type"] == "ValueError"
    (event,) = span.events
    assert dict(event.attributes or {}) == {
        "exception.type": "ValueError",
        "exception.message": "no picture",
        "exception.stacktrace": "a stack",
    }


@pytest.mark.usefixtures("exporter")
def test_handler_runs_in_the_span_of_its_attempt(claim: Claim) -> None:
    """The span of the attempt is the current one, with the `tracestate` of the task."""
    attempt = StageSpans("pictures").start_process(claim(tracestate="vendor=some"))

    def handle() -> None:
        assert trace_context.current_traceparent() == attempt.traceparent
        assert otel.get_current_span().is_recording()
        assert trace_context.fields(attempt.traceparent)["tracestate"] == "vendor=some"

    with trace_context.use_trace(trace_context.generate()):
        attempt.context_with_span(copy_context()).run(handle)
        assert trace_context.current_traceparent() != attempt.traceparent
    attempt.end("completed")


def test_claim_is_linked_to_the_claimed_tasks(exporter: InMemorySpanExporter, claim: Claim) -> None:
    """It is a client span with its own trace; a task without a trace is counted too."""
    with trace_context.use_trace(_ORIGIN), StageSpans("pictures").start_receive() as received:
        current = trace_context.current_traceparent()
        received.set_tasks([claim(), claim(traceparent=trace_context.NO_TRACE)])
    span = _only(exporter)
    assert span.context is not None
    assert current == trace_context.format_traceparent(span.context)
    assert (span.name, span.kind, span.parent) == ("receive pictures", SpanKind.CLIENT, None)
    assert _linked(span) == [_ORIGIN]
    assert _attributes(span) == {
        "messaging.system": "jobnik",
        "messaging.destination.name": "pictures",
        "messaging.operation.name": "receive",
        "messaging.operation.type": "receive",
        "messaging.batch.message_count": 2,
    }


def test_failed_claim_is_an_error(exporter: InMemorySpanExporter) -> None:
    """An exception in the `with` block marks the span as failed."""
    with pytest.raises(ConnectionError), StageSpans("pictures").start_receive():
        raise ConnectionError("the manager is unreachable")
    span = _only(exporter)
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "the manager is unreachable")
    assert _attributes(span)["error.type"] == "ConnectionError"


def test_report_of_one_task_is_in_its_trace(exporter: InMemorySpanExporter, claim: Claim) -> None:
    """The parent of the span is the trace of the task."""
    task = claim()
    with start_settle(["pictures"], [task]):
        pass
    span = _only(exporter)
    assert (span.name, span.kind, span.parent) == ("settle pictures", SpanKind.CLIENT, trace_context.parse(_ORIGIN))
    assert _attributes(span)["messaging.message.id"] == str(task.id)


def test_report_of_many_tasks_is_linked_to_each(exporter: InMemorySpanExporter, claim: Claim) -> None:
    """The span is in none of their traces, and has a stage type only if all tasks have the same."""
    with start_settle(["pictures", "pictures"], [claim(), claim()]):
        pass
    with start_settle(["pictures", "other"], [claim(), claim()]):
        pass
    first, second = exporter.get_finished_spans()
    assert [span.name for span in (first, second)] == ["settle pictures", "settle"]
    assert first.parent is None
    assert _linked(first) == [_ORIGIN, _ORIGIN]
    assert _attributes(first)["messaging.batch.message_count"] == 2
    assert "messaging.destination.name" not in _attributes(second)


def test_trace_is_propagated_without_a_tracer_provider(claim: Claim) -> None:
    """An attempt continues the trace of its task, and no span is recorded."""
    spans, task = StageSpans("pictures"), claim(tracestate="vendor=some")
    with spans.start_receive() as received:
        received.set_tasks([task])
        assert trace_context.current_traceparent() is None
    attempt = spans.start_process(task)

    def handle() -> None:
        assert trace_context.current_traceparent() == attempt.traceparent
        assert trace_context.fields(attempt.traceparent)["tracestate"] == "vendor=some"

    for _ in range(2):
        attempt.context_with_span(copy_context()).run(handle)
    attempt.end("failed", "ValueError", "no picture")
    assert attempt.traceparent == _ORIGIN
    with start_settle(["pictures"], [task]):
        assert trace_context.current_traceparent() is None


def test_trace_is_propagated_if_opentelemetry_is_disabled(monkeypatch: pytest.MonkeyPatch, claim: Claim) -> None:
    """With OTEL_SDK_DISABLED no span is recorded, and the trace is propagated."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    provider = TracerProvider(shutdown_on_exit=False)
    monkeypatch.setattr(otel, "get_tracer_provider", lambda: provider)
    attempt = StageSpans("pictures").start_process(claim(traceparent=trace_context.NO_TRACE))
    assert trace_context.is_valid(attempt.traceparent)


def test_every_task_without_a_trace_starts_one(claim: Claim) -> None:
    """Tasks of the same trace share it; tasks without a trace get one each."""
    spans = StageSpans("pictures")
    tasks = [
        claim(),
        claim(),
        claim(traceparent=trace_context.NO_TRACE),
        claim(traceparent=trace_context.NO_TRACE),
        claim(),
    ]
    traceparents = [spans.start_process(task).traceparent for task in tasks]
    assert [traceparent == _ORIGIN for traceparent in traceparents] == [True, True, False, False, True]
    assert len(set(traceparents)) == 3
