"""Whether the values of the chart fit."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from jobnik_sdk.doctor.findings import CannotCheckError, Finding, well, wrong
from jobnik_sdk.doctor.project import Project, complaint

_SCRIPT: Final = Path(__file__).with_name("chart_values.py")
_NEEDS: Final = ("--with", "jsonschema-rs>=0.40", "--with", "pyyaml>=6.0")


def check(project: Project) -> Iterator[Finding]:
    """Hold each file of values, on top of values.yaml, against the schema; then let helm look, where there is one."""
    chart = project.root / "helm"
    if not chart.exists():
        return
    files = sorted(chart.glob("values*.yaml"), key=lambda file: file.name != "values.yaml")
    faults = [*_misfits(project, chart, files)] or [*_complaints_of_helm(project, files)]
    yield from faults or [well(f"{', '.join(file.name for file in files)} {'fits' if len(files) == 1 else 'fit'}")]


def _misfits(project: Project, chart: Path, files: list[Path]) -> Iterator[Finding]:
    python = ("run", "--quiet", "--no-project", "--isolated", *_NEEDS, "python", "-P")
    result = project.uv(*python, _SCRIPT, chart / "values.schema.json", *files)
    if result.returncode != 0:
        raise CannotCheckError(complaint(result))
    for file, fault in json.loads(result.stdout):
        yield wrong(f"helm/{file}: {fault}", "correct it: the comments in helm/values.yaml say what each value is")


def _complaints_of_helm(project: Project, files: list[Path]) -> Iterator[Finding]:
    helm = shutil.which("helm")
    for file in files if helm else ():
        result = project.run(helm or "", "lint", "--strict", "--quiet", "helm", "--values", file)
        if result.returncode != 0:
            faults = [line for line in result.stdout.splitlines() if line.startswith(("[ERROR]", "[WARNING]"))]
            yield wrong(
                f"with helm/{file.name}: {'; '.join(faults) or complaint(result)}", "make chart shows all of it"
            )
