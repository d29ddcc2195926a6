"""W3C trace context."""

import pytest
from jobnik_sdk.observability import trace_context
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import TracerProvider

_SOME = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


def test_generated_traceparents_are_valid_and_differ() -> None:
    """Every new trace has its own id."""
    first, second = trace_context.generate(), trace_context.generate()
    assert trace_context.is_valid(first)
    assert first != second


@pytest.mark.parametrize(
    "text", ["", trace_context.NO_TRACE, _SOME.upper(), _SOME + "-00", _SOME.replace("00-", "ff-", 1)]
)
def test_invalid_traceparents(text: str) -> None:
    """A traceparent of zeros, or in another format, is invalid."""
    assert not trace_context.is_valid(text)


def test_child_stays_in_the_trace() -> None:
    """A child has the trace id and the flags of its parent, and its own span id."""
    child = trace_context.child_of(_SOME)
    assert child[:36] == _SOME[:36]
    assert child[-2:] == "00"
    assert child != _SOME


def test_child_of_an_invalid_traceparent_starts_a_trace() -> None:
    """Without a trace, a new one is started."""
    assert trace_context.is_valid(trace_context.child_of(trace_context.NO_TRACE))


def test_use_trace_applies_within_the_block() -> None:
    """After the block there is no current trace."""
    with trace_context.use_trace(_SOME):
        assert trace_context.current_traceparent() == _SOME
    assert trace_context.current_traceparent() is None


def test_use_trace_with_an_invalid_traceparent() -> None:
    """There is no current trace within the block."""
    with trace_context.use_trace(trace_context.NO_TRACE):
        assert trace_context.current_traceparent() is None


def test_spans_of_the_application_are_current() -> None:
    """The current trace is that of the current OpenTelemetry span, and such a span belongs to the trace in use."""
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("a program")
    with trace_context.use_trace(_SOME), tracer.start_as_current_span("thinking") as span:
        context = span.get_span_context()
        assert trace_context.current_traceparent() == trace_context.format_traceparent(context)
        assert trace_context.format_traceparent(context)[:36] == _SOME[:36]
    assert otel.get_current_span() is otel.INVALID_SPAN


def test_tracestate_is_propagated_within_its_trace() -> None:
    """A request of the current trace has its `tracestate`; a request of another trace does not."""
    with trace_context.use_trace(_SOME, "vendor=some,other=1"):
        child = trace_context.child_of(_SOME)
        assert trace_context.fields(child) == {"traceparent": child, "tracestate": "vendor=some,other=1"}
        other = trace_context.generate()
        assert trace_context.fields(other) == {"traceparent": other}
        assert trace_context.fields(other, "mine=1") == {"traceparent": other, "tracestate": "mine=1"}
    assert trace_context.fields(child) == {"traceparent": child}
