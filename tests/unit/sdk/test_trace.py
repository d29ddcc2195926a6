"""Trace context."""

import pytest
from jobnik_sdk.observability import trace_context
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import TracerProvider

_SOME = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


def test_generated_traceparents_are_valid_and_differ() -> None:
    """Each new trace has an id of its own."""
    first, second = trace_context.generate(), trace_context.generate()
    assert trace_context.is_valid(first)
    assert first != second


@pytest.mark.parametrize(
    "text", ["", trace_context.NO_TRACE, _SOME.upper(), _SOME + "-00", _SOME.replace("00-", "ff-", 1)]
)
def test_what_names_no_trace_is_invalid(text: str) -> None:
    """All zeros and other shapes are told apart from a trace."""
    assert not trace_context.is_valid(text)


def test_child_stays_in_the_trace() -> None:
    """A child has the trace id and the flags of its parent, and a span id of its own."""
    child = trace_context.child_of(_SOME)
    assert child[:36] == _SOME[:36]
    assert child[-2:] == "00"
    assert child != _SOME


def test_child_of_no_trace_begins_one() -> None:
    """Where there is no trace, work gets one."""
    assert trace_context.is_valid(trace_context.child_of(trace_context.NO_TRACE))


def test_using_holds_within_the_block() -> None:
    """The current trace ends with its block."""
    with trace_context.use_trace(_SOME):
        assert trace_context.current_traceparent() == _SOME
    assert trace_context.current_traceparent() is None


def test_what_names_no_trace_is_not_entered() -> None:
    """A task without a trace does not make one up."""
    with trace_context.use_trace(trace_context.NO_TRACE):
        assert trace_context.current_traceparent() is None


def test_spans_of_the_program_are_current() -> None:
    """What is created within a span of OpenTelemetry belongs to it, and its spans belong to what was entered."""
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("a program")
    with trace_context.use_trace(_SOME), tracer.start_as_current_span("thinking") as span:
        here = span.get_span_context()
        assert trace_context.current_traceparent() == trace_context.traceparent_of(here)
        assert trace_context.traceparent_of(here)[:36] == _SOME[:36]
    assert otel.get_current_span() is otel.INVALID_SPAN


def test_tracestate_goes_along_with_its_trace() -> None:
    """A request of the current trace carries the state on, and one of another trace does not."""
    with trace_context.use_trace(_SOME, "vendor=some,other=1"):
        child = trace_context.child_of(_SOME)
        assert trace_context.carried(child) == {"traceparent": child, "tracestate": "vendor=some,other=1"}
        other = trace_context.generate()
        assert trace_context.carried(other) == {"traceparent": other}
        assert trace_context.carried(other, "mine=1") == {"traceparent": other, "tracestate": "mine=1"}
    assert trace_context.carried(child) == {"traceparent": child}
