"""The spans of a worker, following OpenTelemetry's semantic conventions for messaging.

| span | kind | parent | links |
|---|---|---|---|
| `receive {stage type}` | CLIENT | none | the traces of the claimed tasks |
| `process {stage type}` | CONSUMER | the task's trace | the task's trace |
| `settle {stage type}` | CLIENT | the task's trace; none if there are several tasks | the traces of the tasks |

Without a tracer provider no spans are created, at almost no cost, and each attempt continues the trace of its task, or
starts a new one.
"""

import contextvars
from collections.abc import Iterable
from functools import cache
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

from jobnik_sdk.observability import metrics, trace_context


class TracedTask(Protocol):
    """A task whose fields go into spans."""

    @property
    def id(self) -> UUID: ...  # noqa: D102 named as in the protocol

    @property
    def stage_id(self) -> UUID | str: ...  # noqa: D102 named as in the protocol

    @property
    def attempts(self) -> int: ...  # noqa: D102 named as in the protocol

    @property
    def traceparent(self) -> str: ...  # noqa: D102 named as in the protocol

    @property
    def tracestate(self) -> str | None: ...  # noqa: D102 named as in the protocol


_ROOT: Final = Context()


class RequestSpan:
    """The span of a request to the manager: current within a `with` block. An exception marks it as failed."""

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
        """End the span. Cancellation does not mark it as failed."""
        if self._span is not None:
            detach(self._token)
            if isinstance(error, Exception):
                _fail(self._span, type(error).__name__, str(error))
            self._span.end()

    def set_tasks(self, tasks: Iterable[TracedTask]) -> None:
        """Link the span to the tasks that the response contained."""
        if self._span is None:
            return
        count = 0
        for count, task in enumerate(tasks, 1):  # noqa: B007 the last value is the number of tasks
            for link in _links(task):
                self._span.add_link(link.context, link.attributes)
        self._span.set_attribute("messaging.batch.message_count", count)


class AttemptSpan:
    """The span of an attempt. `traceparent` identifies the span or, without tracing, the trace of the task."""

    __slots__ = ("_span", "_tracestate", "_variables", "traceparent")

    def __init__(self, span: Span | None, traceparent: str, tracestate: str | None = None) -> None:
        self._span = span
        self._tracestate = tracestate
        self.traceparent = traceparent
        self._variables: contextvars.Context | None = None

    def context_with_span(self, variables: contextvars.Context) -> contextvars.Context:
        """Return a copy of `variables` in which this span is current. Pass the same object on every call."""
        if self._variables is None:
            self._variables = variables.copy()
            self._variables.run(self._enter)
        return self._variables.copy()

    def _enter(self) -> None:
        if self._span is None:
            trace_context.enter(self.traceparent, self._tracestate)
        else:
            attach(set_span_in_context(self._span))

    def end(self, outcome: str, error_type: str = "", message: str = "", stack: str = "") -> None:
        """End the span; the outcome of the attempt is `completed`, `failed`, `snoozed` or `cancelled`."""
        if self._span is None:
            return
        self._span.set_attribute("jobnik.task.outcome", outcome)
        if error_type:
            _fail(self._span, error_type, message)
            attributes = {"exception.type": error_type, "exception.message": message, "exception.stacktrace": stack}
            self._span.add_event("exception", {name: value for name, value in attributes.items() if value})
        self._span.end()


class StageSpans:
    """The spans of claims and attempts for one stage type. Set up the tracer provider before you create it."""

    __slots__ = ("_attributes", "_last", "_name", "_tracer")

    def __init__(self, stage_type: str) -> None:
        self._name = stage_type
        self._tracer = _tracer()
        self._attributes = {operation: _attributes(operation, stage_type) for operation in ("receive", "process")}
        self._last: tuple[object, AttemptSpan] | None = None

    @property
    def recorded(self) -> bool:
        """Whether spans are created."""
        return self._tracer is not None

    def start_receive(self) -> RequestSpan:
        """Return the span of a claim; pass the claimed tasks to its `set_tasks`."""
        if self._tracer is None:
            return _NO_SPAN
        name, attributes = f"receive {self._name}", self._attributes["receive"]
        return RequestSpan(self._tracer.start_span(name, _ROOT, SpanKind.CLIENT, attributes))

    def start_process(self, task: TracedTask, job_id: str = "") -> AttemptSpan:
        """Return the span of an attempt: run the handler in its `context_with_span`, and then call `end`."""
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
        name, parent, links = f"process {self._name}", _remote_context(task), _links(task)
        span = self._tracer.start_span(name, parent, SpanKind.CONSUMER, attributes, links)
        return AttemptSpan(span, trace_context.format_traceparent(span.get_span_context()))

    def _unrecorded(self, task: TracedTask) -> AttemptSpan:
        """Return a span that only propagates the trace of the task.

        Tasks that were created together share a trace and are usually claimed together, so they share the object.
        """
        trace = task.traceparent, task.tracestate
        if self._last is not None and self._last[0] == trace:
            return self._last[1]
        if not trace_context.is_valid(task.traceparent):
            return AttemptSpan(None, trace_context.generate())
        self._last = trace, AttemptSpan(None, *trace)
        return self._last[1]


def start_settle(stage_types: Iterable[str], tasks: Iterable[TracedTask]) -> RequestSpan:
    """Return the span of a request that reports the outcomes of attempts at these tasks."""
    tracer = _tracer()
    if tracer is None:
        return _NO_SPAN
    settled = list(tasks)
    types = set(stage_types)
    stage_type = types.pop() if len(types) == 1 else ""
    attributes = _attributes("settle", stage_type)
    if len(settled) == 1:
        attributes["messaging.message.id"] = str(settled[0].id)
    else:
        attributes["messaging.batch.message_count"] = len(settled)
    parent = _remote_context(settled[0]) if len(settled) == 1 else _ROOT
    links = [link for task in settled for link in _links(task)]
    return RequestSpan(tracer.start_span(f"settle {stage_type}".rstrip(), parent, SpanKind.CLIENT, attributes, links))


_NO_SPAN: Final = RequestSpan(None)


def _tracer() -> Tracer | None:
    """Return the tracer; None if the application has not set up a tracer provider."""
    provider = otel.get_tracer_provider()
    return None if isinstance(provider, ProxyTracerProvider) else _tracer_of(provider)


@cache
def _tracer_of(provider: TracerProvider) -> Tracer | None:
    tracer = provider.get_tracer("jobnik_sdk", metrics.VERSION)
    return None if isinstance(tracer, NoOpTracer) else tracer  # with OTEL_SDK_DISABLED


def _attributes(operation: str, stage_type: str) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {
        "messaging.system": "jobnik",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
    }
    if stage_type:
        attributes["messaging.destination.name"] = stage_type
    return attributes


def _remote_context(task: TracedTask) -> Context:
    return set_span_in_context(NonRecordingSpan(trace_context.parse(task.traceparent, task.tracestate)), _ROOT)


def _links(task: TracedTask) -> list[Link]:
    context = trace_context.parse(task.traceparent, task.tracestate)
    return [Link(context, {"messaging.message.id": str(task.id)})] if context.is_valid else []


def _fail(span: Span, error_type: str, message: str) -> None:
    span.set_status(StatusCode.ERROR, message)
    span.set_attribute("error.type", error_type)
