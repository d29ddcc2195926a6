"""A worker's spans, as they would be sent."""

from collections.abc import Callable, Iterator
from contextvars import copy_context
from typing import Any

import pytest
from jobnik_sdk import ClaimedTask, Empty, StageType
from jobnik_sdk.model.entities import claimed_task_of
from jobnik_sdk.observability import trace_context
from jobnik_sdk.observability.spans import StageSpans, settling
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
    """What the spans are sent to."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(otel, "get_tracer_provider", lambda: provider)
    yield exporter
    provider.shutdown()


@pytest.fixture
def claim(task_json: Callable[..., dict[str, Any]]) -> Claim:
    """Return a function that makes a claimed task of the type `pictures`."""
    model = claimed_task_of(StageType("pictures", task=Empty))

    def make(**fields: object) -> Task:
        return model.model_validate({"traceparent": _ORIGIN, **task_json(**fields)})

    return make


def _only(exporter: InMemorySpanExporter) -> ReadableSpan:
    (span,) = exporter.get_finished_spans()
    return span


def _linked(span: ReadableSpan) -> list[str]:
    return [trace_context.traceparent_of(link.context) for link in span.links]


def _attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_an_attempt_is_a_consumer_span_in_the_tasks_trace(exporter: InMemorySpanExporter, claim: Claim) -> None:
    """Its parent is whoever created the task, to whom it is linked as well, and it says which task it is about."""
    job_id = "0190a2a0-0000-7000-8000-000000000001"
    task = claim(attempts=1)
    processing = StageSpans("pictures").processing(task, job_id)
    processing.end("completed")
    span = _only(exporter)
    assert (span.name, span.kind, span.status.status_code) == ("process pictures", SpanKind.CONSUMER, StatusCode.UNSET)
    assert span.parent == trace_context.place_of(_ORIGIN)
    assert _linked(span) == [_ORIGIN]
    assert span.context is not None
    assert processing.traceparent == trace_context.traceparent_of(span.context)
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


def test_a_failed_attempt_is_an_error(exporter: InMemorySpanExporter, claim: Claim) -> None:
    """Its type, its message and its stack are on the span."""
    StageSpans("pictures").processing(claim()).end("failed", "ValueError", "no picture", "a stack")
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
def test_what_a_handler_does_belongs_to_its_attempt(claim: Claim) -> None:
    """The attempt's span is the current one, with the `tracestate` of its task."""
    processing = StageSpans("pictures").processing(claim(tracestate="vendor=some"))

    def handle() -> None:
        assert trace_context.current_traceparent() == processing.traceparent
        assert otel.get_current_span().is_recording()
        assert trace_context.carried(processing.traceparent)["tracestate"] == "vendor=some"

    with trace_context.use_trace(trace_context.generate()):
        processing.around(copy_context()).run(handle)
        assert trace_context.current_traceparent() != processing.traceparent
    processing.end("completed")


def test_a_claim_is_linked_to_what_it_brought(exporter: InMemorySpanExporter, claim: Claim) -> None:
    """It is a client span of its own trace, and a task without a trace is counted all the same."""
    with trace_context.use_trace(_ORIGIN), StageSpans("pictures").receiving() as received:
        current = trace_context.current_traceparent()
        received.note([claim(), claim(traceparent=trace_context.NO_TRACE)])
    span = _only(exporter)
    assert span.context is not None
    assert current == trace_context.traceparent_of(span.context)
    assert (span.name, span.kind, span.parent) == ("receive pictures", SpanKind.CLIENT, None)
    assert _linked(span) == [_ORIGIN]
    assert _attributes(span) == {
        "messaging.system": "jobnik",
        "messaging.destination.name": "pictures",
        "messaging.operation.name": "receive",
        "messaging.operation.type": "receive",
        "messaging.batch.message_count": 2,
    }


def test_a_claim_that_fails_is_an_error(exporter: InMemorySpanExporter) -> None:
    """Whatever leaves its block is what went wrong."""
    with pytest.raises(ConnectionError), StageSpans("pictures").receiving():
        raise ConnectionError("the manager is away")
    span = _only(exporter)
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "the manager is away")
    assert _attributes(span)["error.type"] == "ConnectionError"


def test_a_report_of_one_task_is_in_its_trace(exporter: InMemorySpanExporter, claim: Claim) -> None:
    """Its parent is the task's trace."""
    task = claim()
    with settling(["pictures"], [task]):
        pass
    span = _only(exporter)
    assert (span.name, span.kind, span.parent) == ("settle pictures", SpanKind.CLIENT, trace_context.place_of(_ORIGIN))
    assert _attributes(span)["messaging.message.id"] == str(task.id)


def test_a_report_of_many_tasks_is_linked_to_each(exporter: InMemorySpanExporter, claim: Claim) -> None:
    """It is in none of their traces, and names a stage type only where there is but one."""
    with settling(["pictures", "pictures"], [claim(), claim()]):
        pass
    with settling(["pictures", "other"], [claim(), claim()]):
        pass
    first, second = exporter.get_finished_spans()
    assert [span.name for span in (first, second)] == ["settle pictures", "settle"]
    assert first.parent is None
    assert _linked(first) == [_ORIGIN, _ORIGIN]
    assert _attributes(first)["messaging.batch.message_count"] == 2
    assert "messaging.destination.name" not in _attributes(second)


def test_without_a_tracer_provider_the_trace_is_passed_along(claim: Claim) -> None:
    """An attempt carries on its task's trace, and nothing is recorded."""
    spans, task = StageSpans("pictures"), claim(tracestate="vendor=some")
    with spans.receiving() as received:
        received.note([task])
        assert trace_context.current_traceparent() is None
    processing = spans.processing(task)

    def handle() -> None:
        assert trace_context.current_traceparent() == processing.traceparent
        assert trace_context.carried(processing.traceparent)["tracestate"] == "vendor=some"

    for _ in range(2):
        processing.around(copy_context()).run(handle)
    processing.end("failed", "ValueError", "no picture")
    assert processing.traceparent == _ORIGIN
    with settling(["pictures"], [task]):
        assert trace_context.current_traceparent() is None


def test_a_disabled_sdk_is_as_none(monkeypatch: pytest.MonkeyPatch, claim: Claim) -> None:
    """OTEL_SDK_DISABLED takes the spans away, and the trace is passed along."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    provider = TracerProvider(shutdown_on_exit=False)
    monkeypatch.setattr(otel, "get_tracer_provider", lambda: provider)
    processing = StageSpans("pictures").processing(claim(traceparent=trace_context.NO_TRACE))
    assert trace_context.is_valid(processing.traceparent)


def test_each_task_without_a_trace_begins_one(claim: Claim) -> None:
    """Tasks of one trace share what is made of it; those of none have nothing in common."""
    spans = StageSpans("pictures")
    tasks = [
        claim(),
        claim(),
        claim(traceparent=trace_context.NO_TRACE),
        claim(traceparent=trace_context.NO_TRACE),
        claim(),
    ]
    places = [spans.processing(task).traceparent for task in tasks]
    assert [place == _ORIGIN for place in places] == [True, True, False, False, True]
    assert len(set(places)) == 3
