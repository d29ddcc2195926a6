"""Traces, sent with OTLP over HTTP. The OpenTelemetry SDK is loaded only if tracing is enabled.

The manager creates its spans with the OpenTelemetry API, which does nothing until a provider is set; the framework
creates the spans of requests.
"""

import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from uuid import uuid4

SERVICE = "jobnik-manager"
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
FLUSH_TIMEOUT = 5.0
"""Seconds that the last flush may take when the manager stops."""


def is_tracing_enabled(enabled: bool | None, url: str | None, environment: Mapping[str, str]) -> bool:  # noqa: FBT001 - a setting
    """Return whether to trace.

    Args:
        enabled: The setting; None: trace if there is an endpoint.
        url: The endpoint of the settings, if any.
        environment: The process environment, with the standard OpenTelemetry variables.
    """
    if enabled is False or environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if environment.get("OTEL_TRACES_EXPORTER", "").lower() == "none":
        return False
    return bool(enabled or url or any(environment.get(name) for name in ENDPOINTS))


@contextmanager
def tracing(url: str | None) -> Generator[None]:
    """Collect and send the spans of this process, and flush them at the end of the ``with`` block.

    Args:
        url: The endpoint; None: the one of the standard variables, which also set the sampler, headers and names.
    """
    # These imports take a quarter of a second, so that only a traced manager pays for them.
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
        # Without this limit, the provider retries an unreachable endpoint for half a minute.
        flush_timer = threading.Timer(FLUSH_TIMEOUT, exporter.shutdown)
        flush_timer.start()
        provider.shutdown()
        flush_timer.cancel()
