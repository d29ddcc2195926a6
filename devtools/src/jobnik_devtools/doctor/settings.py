"""Whether the worker's settings can be made from the environment and .env, and .env.example lists them."""

import re
from collections.abc import Iterator
from importlib import import_module
from typing import Final

from jobnik_sdk.errors import SettingsError
from jobnik_sdk.service.settings import WorkerSettings, misspelled

from jobnik_devtools.doctor.findings import Finding, note, well, wrong
from jobnik_devtools.doctor.project import Project

_EXAMPLE: Final = ".env.example"


def check(project: Project) -> Iterator[Finding]:
    """Make the settings, as the worker does at its start."""
    try:
        settings: type[WorkerSettings] = import_module(f"{project.package}.settings").Settings
    except Exception as error:  # noqa: BLE001 the module is the user's, and may raise anything
        where = f"src/{project.package}/settings.py"
        yield wrong(f"{where} cannot be read: {type(error).__name__}: {error}", f"correct {where}")
        return
    faults = [*_faults(project, settings), *_unlisted(project, settings)]
    yield from faults or [well("everything is set, and listed in .env.example")]


def _faults(project: Project, settings: type[WorkerSettings]) -> Iterator[Finding]:
    try:
        settings()
    except SettingsError as error:
        remedy = "set it in .env, or in the environment, which wins"
        if not (project.root / ".env").exists():
            remedy = f"cp {_EXAMPLE} .env, and set it there; or set it in the environment"
        yield from (wrong(line, remedy) for line in str(error).splitlines())
    for variable, meant in misspelled(settings).items():
        yield note(f"{variable} is set, but is no setting", f"is {meant} meant?")


def _unlisted(project: Project, settings: type[WorkerSettings]) -> Iterator[Finding]:
    """Find what the example does not mention. Whoever deleted it wants none."""
    example = project.root / _EXAMPLE
    text = example.read_text(encoding="utf-8") if example.exists() else None
    names = [name.upper() for name in settings.model_fields]
    missing = [name for name in names if text is not None and not re.search(rf"\b{name}", text)]
    if missing:
        yield wrong(
            f"{_EXAMPLE} does not list {', '.join(missing)}", f"add to {_EXAMPLE} with the default, and what it is"
        )
