"""Makes Copier render in half of its CPU time or less, for tests that render the same template many times.

Its commands and those of the doctor are forked, too: their imports take longer than most of what they do.
"""

import sys
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from shlex import join
from types import CodeType
from typing import Any

import pytest
from copier import _template, _vcs
from jinja2 import Environment
from plumbum import local
from plumbum.commands.base import BaseCommand

from tests.support import fork_client
from tests.support.forked_programs import ForkServer
from tools.external import uv

_UV = """\
#!/bin/sh
if [ "$1 $2 $6" = "tool run copier" ]
then shift 6; exec {copier} "$@"
else exec "{uv}" "$@"
fi
"""


def quicken(patch: pytest.MonkeyPatch) -> None:
    """Let Copier do once what it does for each rendering or each file, and leave out what changes nothing.

    It compiles each text of the template, reads each `copier.yml` and asks for the version of git once. It does not ask
    git for `core.fileMode` after each rendered file: it has to record modes of files where that setting is false, which
    it is on Windows. It asks for submodules only where there are any, and for the versions of a template only if that
    has migrations.
    """
    patch.setattr(Environment, "compile", _compile_once(Environment.compile))
    patch.setattr("copier._main.Worker._sync_git_index_executable_bit", _leave_index)
    patch.setattr("copier._template.load_template_config", _read_once(_template.load_template_config))
    patch.setattr("copier._vcs.get_git_version", cache(_vcs.get_git_version))
    run = BaseCommand.__call__

    def run_what_is_needed(self: BaseCommand, *arguments: str, **options: Any) -> str:  # noqa: ANN401 passed on
        if arguments[:1] == ("submodule",) and not Path(str(local.cwd), ".gitmodules").exists():
            return ""
        return run(self, *arguments, **options)

    patch.setattr(BaseCommand, "__call__", run_what_is_needed)
    migration_tasks = _template.Template.migration_tasks

    def migrations(self: _template.Template, stage: Any, from_template: _template.Template) -> Any:  # noqa: ANN401 passed on
        has_any = "migrations" in self.config_data
        return migration_tasks(self, stage, from_template) if has_any else []

    patch.setattr("copier._template.Template.migration_tasks", migrations)


def _leave_index(_worker: object, _path: Path, _mode: int) -> None:
    pass


def _compile_once(compile_anew: Callable[..., CodeType]) -> Callable[..., CodeType]:
    compiled: dict[tuple[object, ...], CodeType] = {}

    def compile_once(self: Environment, source: str, name: str | None = None, filename: str | None = None) -> CodeType:
        # All environments with the same syntax share a lexer. The name of the file is only for tracebacks.
        key = (type(self), self.lexer, source, name)
        if key not in compiled:
            compiled[key] = compile_anew(self, source, name, filename)
        return compiled[key]

    return compile_once


def _read_once(read: Callable[[Path, bool], dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    found: dict[bytes, dict[str, Any]] = {}

    def read_once(path: Path, quiet: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 as in Copier
        content = path.read_bytes()
        if content not in found:
            found[content] = read(path, quiet)
        return deepcopy(found[content])

    return read_once


@cache
def doctor_command() -> list[str]:
    """Return the command of the doctor of this working tree, which `make doctor` and `make update` run."""
    if sys.platform != "linux":  # elsewhere, there is no server that forks
        return [sys.executable, "-m", "jobnik_devtools.doctor"]
    parts = ("chart", "drift", "lock", "manager", "restore", "settings", "update")
    server = ForkServer(*(f"jobnik_devtools.doctor.{part}" for part in parts))
    return [sys.executable, "-I", "-S", fork_client.__file__, server.address, "jobnik_devtools.doctor"]


@cache
def copier_command() -> list[str]:
    """Return the command of the Copier of this environment, which on Linux is quickened."""
    if sys.platform != "linux":  # as above
        return [sys.executable, "-m", "copier"]
    server = ForkServer("tests.template.quickened_copier")
    return [sys.executable, "-I", "-S", fork_client.__file__, server.address, "copier"]


def write_uv(folder: Path) -> Path:
    """Write a `uv` that does what uv does, except that `uv tool run` runs the Copier of this environment, quickened.

    Args:
        folder: An existing folder.
    """
    script = folder / "uv"
    script.write_text(_UV.format(copier=join(copier_command()), uv=uv()))
    script.chmod(0o755)
    return script
