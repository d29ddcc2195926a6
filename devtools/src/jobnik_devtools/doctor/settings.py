"""Checks the worker's settings, and whether .env.example lists them all."""

import re
from collections.abc import Iterator
from importlib import import_module
from typing import Final

from jobnik_sdk.errors import SettingsError
from jobnik_sdk.worker.settings import WorkerSettings, misspelled

from jobnik_devtools.doctor.findings import Finding, note, ok, problem
from jobnik_devtools.doctor.project import Project

_EXAMPLE: Final = ".env.example"
_NO_ADDRESS: Final = "JOBNIK_BASE_URL is not set:"


def check(project: Project) -> Iterator[Finding]:
    """Read the settings from the environment and .env, as the worker does when it starts.

    JOBNIK_BASE_URL may be missing, because `make dev` and `make test` set it, and so does a deployment.
    """
    try:
        settings: type[WorkerSettings] = import_module(f"{project.package}.settings").Settings
    except Exception as error:  # noqa: BLE001 the module belongs to the user, and may raise anything
        file = f"src/{project.package}/settings.py"
        yield problem(f"{file} cannot be imported: {type(error).__name__}: {error}", f"correct {file}")
        return
    findings = [*_invalid_settings(project, settings), *_unlisted_settings(project, settings)]
    yield from findings or [ok("all settings are valid, and listed in .env.example")]


def _invalid_settings(project: Project, settings: type[WorkerSettings]) -> Iterator[Finding]:
    try:
        settings()
    except SettingsError as error:
        remedy = "set it in .env or in the environment; the environment takes precedence"
        if not (project.root / ".env").exists():
            remedy = f"run cp {_EXAMPLE} .env and set it there, or set it in the environment"
        yield from (problem(line, remedy) for line in str(error).splitlines() if not line.startswith(_NO_ADDRESS))
    yield from _misspelled_settings(settings)


def _misspelled_settings(settings: type[WorkerSettings]) -> Iterator[Finding]:
    try:
        variables = misspelled(settings)
    except SettingsError:  # .env cannot be read, which is a problem already
        return
    for variable, meant in variables.items():
        yield note(f"{variable} is set, but there is no such setting", f"did you mean {meant}?")


def _unlisted_settings(project: Project, settings: type[WorkerSettings]) -> Iterator[Finding]:
    """Find settings that the example file does not mention; a project without that file needs none."""
    example = project.root / _EXAMPLE
    text = example.read_text(encoding="utf-8") if example.exists() else None
    names = [name.upper() for name in settings.model_fields]
    missing = [name for name in names if text is not None and not re.search(rf"\b{name}", text)]
    if missing:
        yield problem(
            f"{_EXAMPLE} does not list {', '.join(missing)}",
            f"add each one to {_EXAMPLE} with its default and a description",
        )
