"""Traces, sent by OTLP over HTTP while somebody wants them. Where nobody does, what sends them is not even loaded.

The manager's parts make their spans through the OpenTelemetry API, which does nothing until a provider is set; the
framework makes those of requests.
"""

import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from uuid import uuid4

SERVICE = "jobnik-manager"
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
FLUSH_TIMEOUT = 5.0
"""Seconds that sending the last spans may take, when the manager stops."""


def is_tracing_enabled(enabled: bool | None, url: str | None, environment: Mapping[str, str]) -> bool:  # noqa: FBT001 - a setting
    """Whether to trace.

    Args:
        enabled: The deployment's word; None: it says nothing, so that it depends on whether there is an endpoint.
        url: The endpoint, where the deployment names one.
        environment: The standard variables are looked up here.
    """
    if enabled is False or environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if environment.get("OTEL_TRACES_EXPORTER", "").lower() == "none":
        return False
    return bool(enabled or url or any(environment.get(name) for name in ENDPOINTS))


@contextmanager
def tracing(url: str | None) -> Generator[None]:
    """Collect and send the spans of this process; at the end of the ``with`` block send the last of them.

    Args:
        url: Where to; None: where the standard variables say. Those also set everything else: sampler, headers, names.
    """
    # It takes a quarter of a second, which only those are to pay who want it.
    from opentelemetry import trace  # noqa: PLC0415 - as above
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - as above
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415 - as above
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - as above
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - as above

    defaults = {
        "service.name": SERVICE,
        "service.version": version("jobnik-reference-manager"),
        "service.instance.id": str(uuid4()),
    }
    exporter = OTLPSpanExporter(endpoint=url)
    provider = TracerProvider(
        resource=Resource.create(defaults).merge(OTELResourceDetector().detect()), shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        # The provider would go on trying for half a minute where nobody answers.
        flush_timer = threading.Timer(FLUSH_TIMEOUT, exporter.shutdown)
        flush_timer.start()
        provider.shutdown()
        flush_timer.cancel()
