"""The trace that the current work belongs to: jobs, stages, tasks and requests carry it on, as W3C says.

What is current is what the OpenTelemetry API holds, so that your own spans and what the SDK does are one trace. Where
no SDK of OpenTelemetry is set up no spans are recorded, and the trace is passed along all the same.
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
"""What a manager answers for an entity without a trace."""

_FORMAT: Final = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
_NOWHERE: Final = SpanContext(0, 0, is_remote=True)
_NO_STATE: Final = TraceState()


class _Passed(NonRecordingSpan):
    """The place in a trace that somebody passed along; it is taken apart where it is asked for, which few tasks do."""

    def __init__(self, traceparent: str, tracestate: str | None) -> None:
        super().__init__(_NOWHERE)
        self.traceparent = traceparent
        self._tracestate = tracestate
        self._is_read = False

    @override
    def get_span_context(self) -> SpanContext:
        if not self._is_read:
            self._context = place_of(self.traceparent, self._tracestate)
            self._is_read = True
        return self._context


def current_traceparent() -> str | None:
    """Return the traceparent that holds here, None outside of any trace."""
    span = get_current_span()
    if isinstance(span, _Passed):
        return span.traceparent if is_valid(span.traceparent) else None
    place = span.get_span_context()
    return traceparent_of(place) if place.is_valid else None


def enter(traceparent: str, tracestate: str | None = None) -> None:
    """Make a trace hold in the rest of the current context (an asyncio task has one of its own)."""
    attach(_context_of(traceparent, tracestate))


@contextmanager
def use_trace(traceparent: str, tracestate: str | None = None) -> Generator[None]:
    """Make a trace hold within a `with` block: what is created there belongs to it."""
    token = attach(_context_of(traceparent, tracestate))
    try:
        yield
    finally:
        detach(token)


def is_valid(traceparent: str) -> bool:
    """Tell whether this is a version 00 traceparent that names a trace: all zeros name none."""
    return _FORMAT.fullmatch(traceparent) is not None


def generate() -> str:
    """Return the traceparent of a new, sampled trace."""
    # W3C asks for randomness, not for secrecy, and each task without a trace gets one.
    return f"00-{getrandbits(128) or 1:032x}-{getrandbits(64) or 1:016x}-01"


def child_of(traceparent: str) -> str:
    """Return a traceparent in the same trace with a span id of its own; a new trace where this one names none."""
    match = _FORMAT.fullmatch(traceparent)
    if match is None:
        return generate()
    trace_id, _, flags = match.groups()
    return f"00-{trace_id}-{getrandbits(64) or 1:016x}-{flags}"


def carried(traceparent: str, tracestate: str | None = None) -> dict[str, str]:
    """Return the fields that carry a trace on, in a request's headers or in an entity's body.

    Without a `tracestate` it is the current one, where that belongs to the same trace.
    """
    if tracestate is None:
        here = get_current_span().get_span_context()
        if here.trace_state and traceparent[3:35] == f"{here.trace_id:032x}":
            tracestate = here.trace_state.to_header()
    return {"traceparent": traceparent, "tracestate": tracestate} if tracestate else {"traceparent": traceparent}


def traceparent_of(place: SpanContext) -> str:
    """Return what OpenTelemetry knows of a span as a traceparent."""
    return f"00-{place.trace_id:032x}-{place.span_id:016x}-{place.trace_flags:02x}"


def place_of(traceparent: str, tracestate: str | None = None) -> SpanContext:
    """Return a traceparent as OpenTelemetry knows it; not valid where it names no trace."""
    match = _FORMAT.fullmatch(traceparent)
    if match is None:
        return _NOWHERE
    trace_id, span_id, flags = match.groups()
    state = TraceState.from_header([tracestate]) if tracestate else _NO_STATE
    return SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(int(flags, 16)), state)  # noqa: FBT003 - remote


def _context_of(traceparent: str, tracestate: str | None) -> Context:
    return set_span_in_context(_Passed(traceparent, tracestate), get_current())
