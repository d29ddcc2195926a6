"""Sends traces by OTLP over HTTP, if they are enabled. Otherwise, no code for it is loaded."""

import os
import re
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from importlib.metadata import entry_points
from typing import Final
from uuid import uuid4

import structlog
from opentelemetry import trace as otel

from jobnik_sdk.errors import ConfigurationError
from jobnik_sdk.http.addresses import check_url
from jobnik_sdk.observability.secrets import mask_secrets

SERVICE_NAME: Final = "jobnik-worker"
"""The default of the resource attribute `service.name`."""
ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

_PROVIDER: Final = "OTEL_PYTHON_TRACER_PROVIDER"
_HEADERS: Final = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
_HEADER: Final = re.compile(
    r"[ \t]*[\x21\x23-\x27\x2a\x2b\x2d\x2e0-9A-Z\x5e-\x7a\x7c\x7e]+[ \t]*="
    r"[\x20\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*"
)
"""A header in the form that OpenTelemetry accepts. It logs any other header together with the value."""

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


def check_provider(environment: Mapping[str, str]) -> None:
    """Check the variable that names a tracer provider, which is loaded even if the worker sends no traces.

    Raises:
        ConfigurationError: no such provider is installed.
    """
    name = environment.get(_PROVIDER, "").strip()
    if name and not entry_points(group="opentelemetry_tracer_provider", name=name):
        raise ConfigurationError(f"{_PROVIDER}: no such tracer provider is installed.")


def _check_variables(environment: Mapping[str, str]) -> None:
    """Check the variables of the exporter, which would log invalid ones, with their secrets, until the process ends."""
    for name in ENDPOINTS:
        if environment.get(name) and not check_url(environment[name]):
            raise ConfigurationError(f"{name}: it must be a URL such as http://127.0.0.1:4318.")
    for name in _HEADERS:
        pairs = [pair for pair in environment.get(name, "").split(",") if pair.strip()]
        if not all(map(_HEADER.fullmatch, pairs)):
            raise ConfigurationError(
                f"{name}: it must have the form name=value,name=value, with values that are encoded as in a URL."
            )


def _invalid_variable(error: Exception, environment: Mapping[str, str]) -> ConfigurationError:
    """Return an error that names the variables in a message, or all variables of OpenTelemetry if it has none."""
    variables = sorted(name for name in environment if name.startswith("OTEL_"))
    message = str(error).upper()
    named = [name for name in variables if name.removeprefix("OTEL_").removeprefix("BSP_") in message]
    return ConfigurationError(
        f"{', '.join(named or variables)}: tracing cannot be set up: {mask_secrets(str(error)).rstrip('.')}."
    )


@contextmanager
def tracing(url: str | None, flush_timeout: timedelta) -> Generator[None]:
    """Collect and send the spans of this process; flush the last ones at the end of the `with` block.

    If the program has set up its own tracer provider, that provider is kept.

    Args:
        url: Where to send traces; None: to the endpoint in the standard variables of OpenTelemetry. These also set
            sampler, headers and resource attributes.
        flush_timeout: How long flushing the last spans may take.

    Raises:
        ConfigurationError: the exporter is not installed, or a variable of OpenTelemetry is invalid.
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
    except ValueError as error:  # some variables are read by the modules
        raise _invalid_variable(error, os.environ) from None
    _check_variables(os.environ)
    defaults = {"service.name": SERVICE_NAME, "service.instance.id": str(uuid4())}
    try:
        provider = TracerProvider(
            resource=Resource.create(defaults).merge(OTELResourceDetector().detect()), shutdown_on_exit=False
        )
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)))
    except Exception as error:  # noqa: BLE001 OpenTelemetry raises several types
        raise _invalid_variable(error, os.environ) from None
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
