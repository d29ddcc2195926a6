"""Checks the values of the Helm chart."""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from jobnik_devtools.doctor.findings import CannotCheckError, Finding, ok, problem
from jobnik_devtools.doctor.project import Project, failure_cause

_SCRIPT: Final = Path(__file__).with_name("chart_values.py")
_REQUIREMENTS: Final = ("--with", "jsonschema-rs>=0.40", "--with", "pyyaml>=6.0")


def check(project: Project) -> Iterator[Finding]:
    """Validate each values file, merged into values.yaml, against the schema; then render, if helm is installed."""
    chart = project.root / "helm"
    if not chart.exists():
        return
    files = sorted(chart.glob("values*.yaml"), key=lambda file: file.name != "values.yaml")
    problems = [*_invalid_values(project, chart, files)] or [*_rendering_errors(project, files)]
    yield from problems or [ok(f"valid: {', '.join(file.name for file in files)}")]


def _invalid_values(project: Project, chart: Path, files: Sequence[Path]) -> Iterator[Finding]:
    python = ("run", "--quiet", "--no-project", "--isolated", *_REQUIREMENTS, "python", "-P")
    result = project.uv(*python, _SCRIPT, chart / "values.schema.json", *files)
    if result.returncode != 0:
        raise CannotCheckError(failure_cause(result))
    for file, error in json.loads(result.stdout):
        yield problem(f"helm/{file}: {error}", "correct the value; the comments in helm/values.yaml describe each one")


def _rendering_errors(project: Project, files: Sequence[Path]) -> Iterator[Finding]:
    """Render the chart: values that match the schema can still contradict each other."""
    helm = shutil.which("helm")
    for file in files if helm else ():
        result = project.run(helm or "", "template", "helm", "--values", file)
        if result.returncode != 0:
            yield problem(
                f"with helm/{file.name}: {failure_cause(result)}",
                "correct the value, or the template that the message names",
            )
