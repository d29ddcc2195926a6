"""Whether the manager traces, and what it keeps apart."""

import subprocess
import sys

import pytest
from reference_manager.engine import metrics
from reference_manager.server.tracing import is_tracing_enabled

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


@pytest.mark.parametrize(
    ("enabled", "url", "environment", "traced"),
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
def test_traces_are_wanted_where_there_is_an_endpoint(
    enabled: bool | None,  # noqa: FBT001 - a parameter of the test
    url: str | None,
    environment: dict[str, str],
    traced: bool,  # noqa: FBT001 - as above
) -> None:
    """An endpoint or the deployment's word turns tracing on; any word against it turns it off."""
    assert is_tracing_enabled(enabled, url, environment) is traced


def test_a_manager_that_does_not_trace_loads_nothing_for_it() -> None:
    """Neither the SDK of OpenTelemetry nor its exporter is imported with the manager."""
    look = (
        "import reference_manager.cli, sys; "
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])"
    )
    seen = subprocess.run([sys.executable, "-c", look], check=True, capture_output=True, text=True)  # noqa: S603 - no input
    assert seen.stdout == "[]\n"


def test_only_so_many_stage_types_are_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients choose their names: what comes late counts with the others, and the number of series stays bounded."""
    monkeypatch.setattr(metrics, "_stage_types", set[str]())
    names = [f"name-{number}" for number in range(metrics.MAX_STAGE_TYPES + 5)]
    labels = [metrics.label(name) for name in names]
    assert labels == names[: metrics.MAX_STAGE_TYPES] + [metrics.OTHER] * 5
    assert [metrics.label(name) for name in names] == labels
