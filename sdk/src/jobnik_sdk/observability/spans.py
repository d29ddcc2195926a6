"""A worker's spans, by OpenTelemetry's conventions for messaging.

| span | kind | parent | links |
|---|---|---|---|
| `receive {stage type}` | CLIENT | none | the traces of the tasks that the claim brought |
| `process {stage type}` | CONSUMER | the task's trace | the task's trace |
| `settle {stage type}` | CLIENT | the task's trace; none where there are several tasks | the traces of the tasks |

Where no tracer provider is set up there are no spans, which costs next to nothing, and each attempt carries on the
trace of its task, or a new one.
"""

import contextvars
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from types import TracebackType
from typing import Final, Protocol, Self
from uuid import UUID

from opentelemetry import trace as otel
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    NoOpTracer,
    ProxyTracerProvider,
    Span,
    SpanKind,
    StatusCode,
    Tracer,
    TracerProvider,
    set_span_in_context,
)

from jobnik_sdk.observability import trace_context


class AnyTask(Protocol):
    """A task, as far as a span tells of it."""

    @property
    def id(self) -> UUID: ...  # noqa: D102 as of any task

    @property
    def stage_id(self) -> UUID | str: ...  # noqa: D102 as of any task

    @property
    def attempts(self) -> int: ...  # noqa: D102 as of any task

    @property
    def traceparent(self) -> str: ...  # noqa: D102 as of any task

    @property
    def tracestate(self) -> str | None: ...  # noqa: D102 as of any task


_ROOT: Final = Context()


class Request:
    """What is asked of the manager, as the current span of a `with` block; an error that leaves it is the span's."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: Span | None) -> None:
        self._span = span

    def __enter__(self) -> Self:
        """Make the span the current one."""
        if self._span is not None:
            self._token = attach(set_span_in_context(self._span))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the span. A cancellation is no error."""
        if self._span is not None:
            detach(self._token)
            if isinstance(error, Exception):
                _fail(self._span, type(error).__name__, str(error))
            self._span.end()

    def note(self, tasks: Iterable[AnyTask]) -> None:
        """Say which tasks it is about, once that is known."""
        if self._span is None:
            return
        count = 0
        for count, task in enumerate(tasks, 1):  # noqa: B007 - the last number is how many there are
            for link in _links(task):
                self._span.add_link(link.context, link.attributes)
        self._span.set_attribute("messaging.batch.message_count", count)


class Processing:
    """An attempt at a task: `traceparent` is its place in the task's trace, the task's own if nothing is recorded."""

    __slots__ = ("_around", "_span", "_tracestate", "traceparent")

    def __init__(self, span: Span | None, traceparent: str, tracestate: str | None = None) -> None:
        self._span = span
        self._tracestate = tracestate
        self.traceparent = traceparent
        self._around: contextvars.Context | None = None

    def around(self, context: contextvars.Context) -> contextvars.Context:
        """Return a copy of a context, always the same one, in which it is the current span."""
        if self._around is None:
            self._around = context.copy()
            self._around.run(self._enter)
        return self._around.copy()

    def _enter(self) -> None:
        if self._span is None:
            trace_context.enter(self.traceparent, self._tracestate)
        else:
            attach(set_span_in_context(self._span))

    def end(self, outcome: str, error_type: str = "", message: str = "", stack: str = "") -> None:
        """End the span: the attempt was `completed`, `failed` by an error, `snoozed` or `cancelled`."""
        if self._span is None:
            return
        self._span.set_attribute("jobnik.task.outcome", outcome)
        if error_type:
            _fail(self._span, error_type, message)
            told = {"exception.type": error_type, "exception.message": message, "exception.stacktrace": stack}
            self._span.add_event("exception", {name: value for name, value in told.items() if value})
        self._span.end()


class StageSpans:
    """The spans of claims and attempts at one stage type; a tracer provider counts if it was set up before."""

    __slots__ = ("_attributes", "_last", "_name", "_tracer")

    def __init__(self, stage_type: str) -> None:
        self._name = stage_type
        self._tracer = _tracer()
        self._attributes = {operation: _attributes(operation, stage_type) for operation in ("receive", "process")}
        self._last: tuple[object, Processing] | None = None

    def receiving(self) -> Request:
        """Return the span of a claim: say with `note` what it has brought."""
        if self._tracer is None:
            return _UNSEEN
        name, attributes = f"receive {self._name}", self._attributes["receive"]
        return Request(self._tracer.start_span(name, _ROOT, SpanKind.CLIENT, attributes))

    def processing(self, task: AnyTask, job_id: str = "") -> Processing:
        """Begin an attempt: the handler runs in its `around`, and `end` says its outcome."""
        if self._tracer is None:
            return self._unrecorded(task)
        attributes = {
            **self._attributes["process"],
            "messaging.message.id": str(task.id),
            "jobnik.stage.id": str(task.stage_id),
            "jobnik.task.attempt": task.attempts + 1,
        }
        if job_id:
            attributes["messaging.message.conversation_id"] = job_id
        name, parent, links = f"process {self._name}", _trace_of(task), _links(task)
        span = self._tracer.start_span(name, parent, SpanKind.CONSUMER, attributes, links)
        return Processing(span, trace_context.traceparent_of(span.get_span_context()))

    def _unrecorded(self, task: AnyTask) -> Processing:
        """Return the task's own place, since one of the attempt's own nobody would record.

        Tasks that were created together have one trace, and mostly come together: they share what is made of it.
        """
        place = task.traceparent, task.tracestate
        if self._last is not None and self._last[0] == place:
            return self._last[1]
        if not trace_context.is_valid(task.traceparent):
            return Processing(None, trace_context.generate())
        self._last = place, Processing(None, *place)
        return self._last[1]


def settling(stage_types: Iterable[str], tasks: Iterable[AnyTask]) -> Request:
    """Return the span of a request that says how attempts at tasks of these types have ended."""
    tracer = _tracer()
    if tracer is None:
        return _UNSEEN
    settled = list(tasks)
    types = set(stage_types)
    stage_type = types.pop() if len(types) == 1 else ""
    attributes = _attributes("settle", stage_type)
    if len(settled) == 1:
        attributes["messaging.message.id"] = str(settled[0].id)
    else:
        attributes["messaging.batch.message_count"] = len(settled)
    parent = _trace_of(settled[0]) if len(settled) == 1 else _ROOT
    links = [link for task in settled for link in _links(task)]
    return Request(tracer.start_span(f"settle {stage_type}".rstrip(), parent, SpanKind.CLIENT, attributes, links))


_UNSEEN: Final = Request(None)


def _tracer() -> Tracer | None:
    """What spans are made with; None where nobody set that up."""
    provider = otel.get_tracer_provider()
    return None if isinstance(provider, ProxyTracerProvider) else _tracer_of(provider)


@cache
def _tracer_of(provider: TracerProvider) -> Tracer | None:
    tracer = provider.get_tracer("jobnik_sdk", version("jobnik-sdk"))
    return None if isinstance(tracer, NoOpTracer) else tracer  # as OTEL_SDK_DISABLED makes it


def _attributes(operation: str, stage_type: str) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {
        "messaging.system": "jobnik",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
    }
    if stage_type:
        attributes["messaging.destination.name"] = stage_type
    return attributes


def _trace_of(task: AnyTask) -> Context:
    return set_span_in_context(NonRecordingSpan(trace_context.place_of(task.traceparent, task.tracestate)), _ROOT)


def _links(task: AnyTask) -> list[Link]:
    place = trace_context.place_of(task.traceparent, task.tracestate)
    return [Link(place, {"messaging.message.id": str(task.id)})] if place.is_valid else []


def _fail(span: Span, error_type: str, message: str) -> None:
    span.set_status(StatusCode.ERROR, message)
    span.set_attribute("error.type", error_type)
