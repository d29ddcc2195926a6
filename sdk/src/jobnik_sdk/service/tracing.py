"""Sends traces by OTLP over HTTP, if they are enabled. Otherwise, no code for it is loaded."""

import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Final
from uuid import uuid4

import structlog
from opentelemetry import trace as otel

from jobnik_sdk.errors import ConfigurationError

SERVICE_NAME: Final = "jobnik-worker"
"""The default of the resource attribute `service.name`."""
ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger(__name__)


def is_enabled(enabled: bool | None, url: str | None, environment: Mapping[str, str]) -> bool:  # noqa: FBT001 a setting
    """Return whether to send traces.

    Args:
        enabled: The setting; None if it is not set: then traces are sent if there is an endpoint.
        url: The setting for the endpoint.
        environment: The environment with the standard variables of OpenTelemetry.
    """
    if enabled is False or environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if environment.get("OTEL_TRACES_EXPORTER", "").lower() == "none":
        return False
    return bool(enabled or url or any(environment.get(name) for name in ENDPOINTS))


@contextmanager
def tracing(url: str | None, flush_timeout: timedelta) -> Generator[None]:
    """Collect and send the spans of this process; flush the last ones at the end of the `with` block.

    If the program has set up its own tracer provider, that provider is kept.

    Args:
        url: Where to send traces; None: to the endpoint in the standard variables of OpenTelemetry. These also set
            sampler, headers and resource attributes.
        flush_timeout: How long flushing the last spans may take.

    Raises:
        ConfigurationError: the exporter is not installed.
    """
    if not isinstance(otel.get_tracer_provider(), otel.ProxyTracerProvider):
        _log.info("tracer provider already set up, using it")
        yield
        return
    # Importing these takes a quarter of a second, which only workers that send traces should pay.
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 as above
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415 as above
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 as above
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 as above
    except ImportError as error:
        raise ConfigurationError(
            f"Tracing is enabled, but the exporter is not installed ({error}): install jobnik-sdk[telemetry], or set "
            "TELEMETRY_TRACING_ENABLED=false."
        ) from error

    defaults = {"service.name": SERVICE_NAME, "service.instance.id": str(uuid4())}
    provider = TracerProvider(
        resource=Resource.create(defaults).merge(OTELResourceDetector().detect()), shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)))
    otel.set_tracer_provider(provider)
    try:
        yield
    finally:
        # In a thread, because the exporter retries for half a minute if the collector does not respond.
        flush = threading.Thread(target=provider.shutdown, name="jobnik-flush-spans", daemon=True)
        flush.start()
        flush.join(flush_timeout.total_seconds())
        if flush.is_alive():
            _log.warning("spans not sent in time", timeout_seconds=flush_timeout.total_seconds())
