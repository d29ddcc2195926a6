"""Traces, sent by OTLP over HTTP where somebody wants them. Where nobody does, what sends them is not even loaded."""

import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Final
from uuid import uuid4

import structlog
from opentelemetry import trace as otel

from jobnik_sdk.errors import ConfigurationError

SERVICE: Final = "jobnik-worker"
"""What the spans are of, where nothing else is said."""
ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger(__name__)


def wanted(enabled: bool | None, url: str | None, environment: Mapping[str, str]) -> bool:  # noqa: FBT001 a setting
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
def tracing(url: str | None, patience: timedelta) -> Generator[None]:
    """Collect and send the spans of this process; at the end of the `with` block send the last of them.

    A tracer provider that the program has set up itself is left alone.

    Args:
        url: Where to; None: where the standard variables say. Those also set everything else: sampler, headers, names.
        patience: How long sending the last spans may take.

    Raises:
        ConfigurationError: what sends spans is not installed.
    """
    if not isinstance(otel.get_tracer_provider(), otel.ProxyTracerProvider):
        _log.info("the program has set up its own traces")
        yield
        return
    # It takes a quarter of a second, which only those are to pay who want it.
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 as above
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415 as above
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 as above
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 as above
    except ImportError as error:
        raise ConfigurationError(
            f"Traces are to be sent, but what sends them is not installed ({error}): install jobnik-sdk[telemetry], or "
            "set TELEMETRY_TRACING_ENABLED=false."
        ) from error

    defaults = {"service.name": SERVICE, "service.instance.id": str(uuid4())}
    provider = TracerProvider(
        resource=Resource.create(defaults).merge(OTELResourceDetector().detect()), shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)))
    otel.set_tracer_provider(provider)
    try:
        yield
    finally:
        # It would go on trying for half a minute where nobody answers.
        last_words = threading.Thread(target=provider.shutdown, name="jobnik-last-spans", daemon=True)
        last_words.start()
        last_words.join(patience.total_seconds())
        if last_words.is_alive():
            _log.warning("the last spans could not be sent in time", seconds=patience.total_seconds())
