"""W3C trace context: jobs, stages, tasks and requests propagate the current trace.

The current trace is that of the OpenTelemetry API, so your own spans and the SDK's belong to one trace. Without an
OpenTelemetry SDK no spans are recorded, but the trace is still propagated.
"""

import re
from collections.abc import Generator
from contextlib import contextmanager
from random import getrandbits
from typing import Final

from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    TraceState,
    get_current_span,
    set_span_in_context,
)
from typing_extensions import override

NO_TRACE: Final = f"00-{'0' * 32}-{'0' * 16}-00"
"""The traceparent of an entity without a trace."""

_FORMAT: Final = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
_INVALID: Final = SpanContext(0, 0, is_remote=True)
_NO_TRACESTATE: Final = TraceState()


class _RemoteSpan(NonRecordingSpan):
    """A span of another process. Its traceparent is parsed on first use, because most tasks never need it."""

    def __init__(self, traceparent: str, tracestate: str | None) -> None:
        super().__init__(_INVALID)
        self.traceparent = traceparent
        self._tracestate = tracestate
        self._is_parsed = False

    @override
    def get_span_context(self) -> SpanContext:
        if not self._is_parsed:
            self._context = parse(self.traceparent, self._tracestate)
            self._is_parsed = True
        return self._context


def current_traceparent() -> str | None:
    """Return the traceparent of the current trace, in the W3C format; None outside any trace.

    In a handler, that is the trace of its task.
    """
    span = get_current_span()
    if isinstance(span, _RemoteSpan):
        return span.traceparent if is_valid(span.traceparent) else None
    context = span.get_span_context()
    return format_traceparent(context) if context.is_valid else None


def enter(traceparent: str, tracestate: str | None = None) -> None:
    """Make a trace the current one for the rest of the current context (an asyncio task has its own)."""
    attach(_otel_context(traceparent, tracestate))


@contextmanager
def use_trace(traceparent: str, tracestate: str | None = None) -> Generator[None]:
    """Make a trace the current one within a `with` block: jobs, stages and tasks created there belong to it.

    >>> with use_trace(request.headers["traceparent"]):
    ...     await producer.create_job(gallery, GalleryData(owner="ada"))

    Args:
        traceparent: In the W3C format. If it is invalid, there is no current trace within the block.
        tracestate: Vendor-specific trace data, in the W3C format.
    """
    token = attach(_otel_context(traceparent, tracestate))
    try:
        yield
    finally:
        detach(token)


def is_valid(traceparent: str) -> bool:
    """Return whether this is a valid traceparent of version 00. One with an id of zeros is not."""
    return _FORMAT.fullmatch(traceparent) is not None


def generate() -> str:
    """Return the traceparent of a new, sampled trace."""
    # W3C requires randomness, not secrecy, and this runs for every task without a trace.
    return f"00-{getrandbits(128) or 1:032x}-{getrandbits(64) or 1:016x}-01"


def child_of(traceparent: str) -> str:
    """Return a traceparent in the same trace with a new span id; if this one is invalid, in a new trace."""
    match = _FORMAT.fullmatch(traceparent)
    if match is None:
        return generate()
    trace_id, _, flags = match.groups()
    return f"00-{trace_id}-{getrandbits(64) or 1:016x}-{flags}"


def fields(traceparent: str, tracestate: str | None = None) -> dict[str, str]:
    """Return the fields that propagate a trace, for the headers of a request or the body of an entity.

    Without `tracestate`, the current one is used if it belongs to the same trace.
    """
    if tracestate is None:
        current = get_current_span().get_span_context()
        if current.trace_state and traceparent[3:35] == f"{current.trace_id:032x}":
            tracestate = current.trace_state.to_header()
    return {"traceparent": traceparent, "tracestate": tracestate} if tracestate else {"traceparent": traceparent}


def format_traceparent(context: SpanContext) -> str:
    """Return the traceparent of an OpenTelemetry span context."""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def parse(traceparent: str, tracestate: str | None = None) -> SpanContext:
    """Return a traceparent as an OpenTelemetry span context, which is invalid if the traceparent is."""
    match = _FORMAT.fullmatch(traceparent)
    if match is None:
        return _INVALID
    trace_id, span_id, flags = match.groups()
    state = TraceState.from_header([tracestate]) if tracestate else _NO_TRACESTATE
    return SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(int(flags, 16)), state)  # noqa: FBT003 is_remote


def _otel_context(traceparent: str, tracestate: str | None) -> Context:
    return set_span_in_context(_RemoteSpan(traceparent, tracestate), get_current())
