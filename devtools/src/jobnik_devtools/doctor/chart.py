"""Whether the values of the chart fit."""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from jobnik_devtools.doctor.findings import CannotCheckError, Finding, well, wrong
from jobnik_devtools.doctor.project import Project, complaint

_SCRIPT: Final = Path(__file__).with_name("chart_values.py")
_NEEDS: Final = ("--with", "jsonschema-rs>=0.40", "--with", "pyyaml>=6.0")


def check(project: Project) -> Iterator[Finding]:
    """Hold each file of values, on top of values.yaml, against the schema; then render, where there is a helm."""
    chart = project.root / "helm"
    if not chart.exists():
        return
    files = sorted(chart.glob("values*.yaml"), key=lambda file: file.name != "values.yaml")
    faults = [*_misfits(project, chart, files)] or [*_failures(project, files)]
    yield from faults or [well(f"{', '.join(file.name for file in files)} {'fits' if len(files) == 1 else 'fit'}")]


def _misfits(project: Project, chart: Path, files: Sequence[Path]) -> Iterator[Finding]:
    python = ("run", "--quiet", "--no-project", "--isolated", *_NEEDS, "python", "-P")
    result = project.uv(*python, _SCRIPT, chart / "values.schema.json", *files)
    if result.returncode != 0:
        raise CannotCheckError(complaint(result))
    for file, fault in json.loads(result.stdout):
        yield wrong(f"helm/{file}: {fault}", "correct it: the comments in helm/values.yaml say what each value is")


def _failures(project: Project, files: Sequence[Path]) -> Iterator[Finding]:
    """Let helm render: values may fit the schema, but not each other."""
    helm = shutil.which("helm")
    for file in files if helm else ():
        result = project.run(helm or "", "template", "helm", "--values", file)
        if result.returncode != 0:
            yield wrong(
                f"with helm/{file.name}: {complaint(result)}", "correct the value or the template that it names"
            )
