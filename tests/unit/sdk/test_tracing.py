"""When a worker sends traces."""

import subprocess
import sys
from datetime import timedelta

import pytest
from jobnik_sdk import ConfigurationError
from jobnik_sdk.service.tracing import is_enabled, tracing
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import TracerProvider

_ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
_URL = "http://127.0.0.1:4318/v1/traces"


@pytest.mark.parametrize(
    ("enabled", "url", "environment", "expected"),
    [
        (None, None, {}, False),
        (None, None, {"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        (None, None, _ENDPOINT, True),
        (None, None, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": _URL}, True),
        (None, _URL, {}, True),
        (True, None, {}, True),
        (False, _URL, _ENDPOINT, False),
        (True, _URL, {"OTEL_SDK_DISABLED": "true"}, False),
        (True, _URL, {"OTEL_TRACES_EXPORTER": "None"}, False),
    ],
)
def test_tracing_is_enabled_by_an_endpoint(
    enabled: bool | None,  # noqa: FBT001 a parameter of the test
    url: str | None,
    environment: dict[str, str],
    expected: bool,  # noqa: FBT001 as above
) -> None:
    """An endpoint or the setting enables tracing; the setting or OpenTelemetry's variables disable it."""
    assert is_enabled(enabled, url, environment) is expected


def test_a_missing_exporter_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker does not start, and the error names the extra to install."""
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with (
        pytest.raises(ConfigurationError, match=r"install jobnik-sdk\[telemetry\]"),
        tracing(None, timedelta(seconds=1)),
    ):
        pass


def test_a_tracer_provider_of_the_program_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker does not replace a provider that is set up already."""
    provider = TracerProvider(shutdown_on_exit=False)
    monkeypatch.setattr(otel, "get_tracer_provider", lambda: provider)

    def fail(_provider: object) -> None:
        raise AssertionError("the provider was replaced")

    monkeypatch.setattr(otel, "set_tracer_provider", fail)
    with tracing(_URL, timedelta(seconds=1)):
        pass


def test_without_tracing_no_exporter_is_loaded() -> None:
    """Importing the worker imports neither OpenTelemetry's SDK nor its exporter."""
    program = (
        "import jobnik_sdk.service.process, sys; "
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])"
    )
    result = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)  # noqa: S603 no input
    assert result.stdout == "[]\n"
