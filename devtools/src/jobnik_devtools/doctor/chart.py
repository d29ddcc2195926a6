"""Checks the values of the Helm chart."""

import json
import shutil
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import yaml
from jobnik_sdk import Handler, StageType

from jobnik_devtools.doctor.findings import CannotCheckError, Finding, note, ok, problem
from jobnik_devtools.doctor.project import Project, failure_cause

_SCRIPT: Final = Path(__file__).with_name("chart_values.py")
_NOT_COMPARED: Final = "stageTypes cannot be compared with the handlers, because container.py"
_REQUIREMENTS: Final = ("--with", "jsonschema-rs>=0.40", "--with", "pyyaml>=6.0")


def check(project: Project) -> Iterator[Finding]:
    """Validate each values file, merged into values.yaml, against the schema; then render, if helm is installed.

    The stage types of valid values are compared with those of the worker's handlers.
    """
    chart = project.root / "helm"
    if not chart.exists():
        return
    files = sorted(chart.glob("values*.yaml"), key=lambda file: file.name != "values.yaml")
    problems = [*_invalid_values(project, chart, files)] or [*_rendering_errors(project, files)]
    if problems:
        yield from problems
        return
    yield ok(f"valid: {', '.join(file.name for file in files)}")
    handled = _handled_stage_types(project)
    for file in files:
        yield from _different_stage_types(file, handled)


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


def _different_stage_types(file: Path, handled: set[str]) -> Iterator[Finding]:
    values: dict[str, Any] = yaml.safe_load(file.read_text("utf-8")) or {}
    if values.get("stageTypes") is None:  # a further file that leaves them as they are in values.yaml
        return
    listed = set[str](values["stageTypes"])
    if missing := sorted(handled - listed):
        yield problem(
            f"helm/{file.name}: stageTypes does not list {', '.join(missing)}, which the worker handles",
            f"add {'it' if len(missing) == 1 else 'them'}; "
            "the scaler, the alerts and the dashboard watch only the stage types that are listed",
        )
    if unknown := sorted(listed - handled):
        yield note(
            f"helm/{file.name}: stageTypes lists {', '.join(unknown)}, for which the worker has no handler",
            "remove it, or list its handler in container.py"
            if len(unknown) == 1
            else "remove them, or list their handlers in container.py",
        )


def _handled_stage_types(project: Project) -> set[str]:
    """Return the stage types of the handlers in the worker's container, without opening its resources.

    Raises:
        CannotCheckError: the container cannot be imported, or creates its handlers in another way than the template's.
    """
    try:
        providers: list[Any] = list(import_module(f"{project.package}.container").Container.worker.traverse())
    except Exception as error:  # noqa: BLE001 the module belongs to the user, and may raise anything
        raise CannotCheckError(f"{_NOT_COMPARED} cannot be read: {type(error).__name__}: {error}") from None
    listed = [getattr(provider, "args", ()) for provider in providers if type(provider).__name__ == "List"]
    handlers = [item for items in listed if any(map(_creates_handler, items)) for item in items]
    found = set(map(_stage_type_name, handlers))
    if not found or None in found:
        raise CannotCheckError(f"{_NOT_COMPARED} does not list a provider of a Handler for each one")
    return {name for name in found if name}


def _creates_handler(provider: Any) -> bool:  # noqa: ANN401 any item of a list
    return getattr(provider, "provides", None) is Handler


def _stage_type_name(provider: Any) -> str | None:  # noqa: ANN401 as above
    """Return the name of the stage type that a provider passes to its handler; None if it is not known."""
    if not _creates_handler(provider):
        return None
    stage_type = provider.args[0] if provider.args else provider.kwargs.get("stage_type")
    return stage_type.name if isinstance(stage_type, StageType) else None
