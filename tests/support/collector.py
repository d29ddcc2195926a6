"""A trace collector for tests, which receives OTLP over HTTP."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import NamedTuple, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

TIMEOUT = 10.0
"""Seconds to wait for spans."""


class ReceivedSpan(NamedTuple):
    """A received span, reduced to the fields that the tests check."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    status: int
    attributes: dict[str, object]
    resource: dict[str, object]

    @property
    def traceparent(self) -> str:
        """The span's own context as a traceparent with the sampled flag set."""
        return f"00-{self.trace_id}-{self.span_id}-01"


class Collector:
    """Listens on a free port within its ``with`` block and keeps every span."""

    def __init__(self) -> None:
        self.spans: list[ReceivedSpan] = []
        self._received = threading.Condition()

    def __enter__(self) -> Self:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = ExportTraceServiceRequest()
                request.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
                collector.store(self.path, request)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as its base has it
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def store(self, path: str, request: ExportTraceServiceRequest) -> None:
        """Store the spans of an export request."""
        assert path == "/v1/traces"
        with self._received:
            for group in request.resource_spans:
                resource = _values(group.resource.attributes)
                self.spans += [_received_span(span, resource) for scope in group.scope_spans for span in scope.spans]
            self._received.notify_all()

    async def find(self, matches: Callable[[ReceivedSpan], object], count: int = 1) -> Sequence[ReceivedSpan]:
        """Wait until at least `count` spans match, and return the matching spans."""

        def has_enough() -> bool:
            return len([span for span in self.spans if matches(span)]) >= count

        def wait() -> bool:
            with self._received:
                return self._received.wait_for(has_enough, TIMEOUT)

        assert await asyncio.to_thread(wait), [span.name for span in self.spans]
        return [span for span in self.spans if matches(span)]

    async def named(self, name: str) -> ReceivedSpan:
        """Wait for a span with this name and return the first one."""
        return (await self.find(lambda span: span.name == name))[0]


def _received_span(span: Span, resource: dict[str, object]) -> ReceivedSpan:
    return ReceivedSpan(
        span.name,
        Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.status.code,
        _values(span.attributes),
        resource,
    )


def _values(pairs: Sequence[KeyValue]) -> dict[str, object]:
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in pairs}
