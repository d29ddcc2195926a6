"""The settings that turn tracing on, and the limit on stage types as metric labels."""

import subprocess
import sys

import pytest
from reference_manager.engine import metrics
from reference_manager.server.tracing import is_tracing_enabled

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


@pytest.mark.parametrize(
    ("enabled", "url", "environment", "expected"),
    [
        (None, None, {}, False),
        (None, None, {"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        (None, None, ENDPOINT, True),
        (None, None, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        (None, "http://127.0.0.1:4318/v1/traces", {}, True),
        (True, None, {}, True),
        (False, "http://127.0.0.1:4318/v1/traces", ENDPOINT, False),
        (True, None, ENDPOINT | {"OTEL_SDK_DISABLED": "True"}, False),
        (True, None, ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_tracing_is_on_if_there_is_an_endpoint(
    enabled: bool | None,  # noqa: FBT001 - a parameter of the test
    url: str | None,
    environment: dict[str, str],
    expected: bool,  # noqa: FBT001 - as above
) -> None:
    """An endpoint or the setting turns tracing on, and any setting against it turns it off."""
    assert is_tracing_enabled(enabled, url, environment) is expected


def test_a_manager_without_tracing_does_not_import_opentelemetry() -> None:
    """Neither the OpenTelemetry SDK nor its exporter is imported with the manager."""
    code = (
        "import reference_manager.cli, sys; "
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])"
    )
    completed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)  # noqa: S603 - no input
    assert completed.stdout == "[]\n"


def test_the_number_of_stage_types_in_metrics_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients choose the names, so late stage types share one label and the number of series stays bounded."""
    monkeypatch.setattr(metrics, "_stage_types", set[str]())
    names = [f"name-{number}" for number in range(metrics.MAX_STAGE_TYPES + 5)]
    labels = [metrics.label(name) for name in names]
    assert labels == names[: metrics.MAX_STAGE_TYPES] + [metrics.OTHER] * 5
    assert [metrics.label(name) for name in names] == labels
