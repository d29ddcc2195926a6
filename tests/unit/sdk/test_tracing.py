"""Export of traces by a worker."""

import subprocess
import sys
from datetime import timedelta

import pytest
from jobnik_sdk import ConfigurationError
from jobnik_sdk.service.tracing import tracing, wanted
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import TracerProvider

_ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
_URL = "http://127.0.0.1:4318/v1/traces"


@pytest.mark.parametrize(
    ("enabled", "url", "environment", "traced"),
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
def test_traces_are_exported_if_there_is_an_endpoint(
    enabled: bool | None,  # noqa: FBT001 a parameter of the test
    url: str | None,
    environment: dict[str, str],
    traced: bool,  # noqa: FBT001 as above
) -> None:
    """An endpoint or the setting enables tracing; the setting and OpenTelemetry's variables disable it."""
    assert wanted(enabled, url, environment) is traced


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the exporter is not installed, the error says what to install, before any task is claimed."""
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with (
        pytest.raises(ConfigurationError, match=r"install jobnik-sdk\[telemetry\]"),
        tracing(None, timedelta(seconds=1)),
    ):
        pass


def test_existing_tracer_provider_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracer provider that the application has set up is not replaced."""
    provider = TracerProvider(shutdown_on_exit=False)
    monkeypatch.setattr(otel, "get_tracer_provider", lambda: provider)

    def refuse(_provider: object) -> None:
        raise AssertionError("the provider is replaced")

    monkeypatch.setattr(otel, "set_tracer_provider", refuse)
    with tracing(_URL, timedelta(seconds=1)):
        pass


def test_worker_without_tracing_imports_no_exporter() -> None:
    """Neither OpenTelemetry's SDK nor its exporter is imported together with the worker."""
    look = (
        "import jobnik_sdk.service.process, sys; "
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])"
    )
    seen = subprocess.run([sys.executable, "-c", look], check=True, capture_output=True, text=True)  # noqa: S603 no input
    assert seen.stdout == "[]\n"
