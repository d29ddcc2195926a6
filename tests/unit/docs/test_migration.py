"""The guide for users of the TypeScript SDK names settings, chart values and metrics that exist."""

import re
from pathlib import Path
from typing import Any, cast

import yaml
from jobnik_sdk import WorkerSettings

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "how-to" / "migrate-from-typescript.md").read_text()


def _names_here(heading: str, column: int = 2) -> set[str]:
    """Return the names in backticks in a column of the table under a heading."""
    table = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line.split(" | ")[column - 1] for line in table.splitlines() if line.startswith("| ")]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def _paths(values: Any, prefix: str = "") -> set[str]:  # noqa: ANN401 - any YAML
    """Return the dotted path of each value and of each mapping that contains it."""
    if not isinstance(values, dict):
        return set()
    named = cast("dict[str, Any]", values)
    return {f"{prefix}{name}" for name in named}.union(
        *(_paths(value, f"{prefix}{name}.") for name, value in named.items())
    )


def test_settings_exist() -> None:
    """Each setting is a setting of the worker or of OpenTelemetry."""
    names = {name.partition("=")[0] for name in _names_here("Settings") if re.match(r"[A-Z]+_", name)}

    assert len(names) > 5
    assert {name for name in names if not name.startswith("OTEL_")} <= {
        name.upper() for name in WorkerSettings.model_fields
    }


def test_chart_values_exist() -> None:
    """Each value is in the values.yaml of the chart."""
    values = re.sub(r"\{\{.*?\}\}", "x", (ROOT / "template" / "helm" / "values.yaml.jinja").read_text())

    names = {name for name in _names_here("The chart's values") if not re.match(r"/|[A-Z]", name)}
    assert len(names) > 10
    assert names <= _paths(yaml.safe_load(values))


def test_metrics_exist() -> None:
    """Each metric that both workers share is in the reference of metrics."""
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text()

    names = {name for name in _names_here("Metrics", 1) if name.startswith("jobnik") and "…" not in name}
    assert len(names) > 5
    assert {name for name in names if f"`{name}`" not in page} == set()
