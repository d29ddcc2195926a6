"""Traces, sent with OTLP over HTTP. The OpenTelemetry SDK is loaded only if tracing is enabled.

The manager creates its spans with the OpenTelemetry API, which does nothing until a provider is set; the framework
creates the spans of requests.
"""

import os
import re
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from importlib.metadata import entry_points, version
from typing import TYPE_CHECKING
from uuid import uuid4

from reference_manager.settings import is_http_url

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

SERVICE = "jobnik-manager"
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
GROUPS = {
    "OTEL_PYTHON_TRACER_PROVIDER": "opentelemetry_tracer_provider",
    "OTEL_PROPAGATORS": "opentelemetry_propagator",
}
"""The groups of entry points in which OpenTelemetry looks for the names in these variables."""
HEADERS = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
HEADER = re.compile(
    r"[ \t]*[\x21\x23-\x27\x2a\x2b\x2d\x2e0-9A-Z\x5e-\x7a\x7c\x7e]+[ \t]*="
    r"[\x20\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*"
)
"""A header in the form that OpenTelemetry accepts. It logs any other header together with the value."""
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


class InvalidVariableError(Exception):
    """A variable of OpenTelemetry is invalid; the message names it."""


def check_installed(environment: Mapping[str, str]) -> None:
    """Check the variables that name parts of OpenTelemetry.

    Raises:
        InvalidVariableError: A part is not installed.
    """
    for variable, group in GROUPS.items():
        for name in filter(None, map(str.strip, environment.get(variable, "").split(","))):
            if name != "none" and not entry_points(group=group, name=name):
                raise InvalidVariableError(f"{variable}: {name!r} is not installed.")


@contextmanager
def tracing(url: str | None) -> Generator[None]:
    """Collect and send the spans of this process, and flush them at the end of the ``with`` block.

    Args:
        url: The endpoint; None: the one of the standard variables, which also set the sampler, headers and names.

    Raises:
        InvalidVariableError: One of these variables is invalid.
    """
    try:
        exporter, provider = _set_up(url)
    except Exception as error:  # noqa: BLE001 - OpenTelemetry raises several types
        raise _invalid_variable(error, os.environ) from None
    try:
        yield
    finally:
        # Without this limit, the provider retries an unreachable endpoint for half a minute.
        flush_timer = threading.Timer(FLUSH_TIMEOUT, exporter.shutdown)
        flush_timer.start()
        provider.shutdown()
        flush_timer.cancel()


def _set_up(url: str | None) -> tuple["SpanExporter", "TracerProvider"]:
    _check_variables(os.environ)
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
    return exporter, provider


def _check_variables(environment: Mapping[str, str]) -> None:
    """Check the variables of the exporter, which would log invalid ones, with their secrets, until the process ends."""
    for name in ENDPOINTS:
        if environment.get(name) and not is_http_url(environment[name]):
            raise InvalidVariableError(f"{name}: it must be a URL such as http://127.0.0.1:4318.")
    for name in HEADERS:
        pairs = [pair for pair in environment.get(name, "").split(",") if pair.strip()]
        if not all(map(HEADER.fullmatch, pairs)):
            raise InvalidVariableError(
                f"{name}: it must have the form name=value,name=value, with values that are encoded as in a URL."
            )


def _invalid_variable(error: Exception, environment: Mapping[str, str]) -> InvalidVariableError:
    """Return an error that names the variables in a message, or all variables of OpenTelemetry if it has none."""
    if isinstance(error, InvalidVariableError):
        return error
    variables = sorted(name for name in environment if name.startswith("OTEL_"))
    message = str(error).upper()
    named = [name for name in variables if name.removeprefix("OTEL_").removeprefix("BSP_") in message]
    reason = str(error).rstrip(".")
    return InvalidVariableError(f"{', '.join(named or variables)}: tracing cannot be set up: {reason}.")
