"""The loop over repositories in docs/how-to/run-many-workers.md."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from shlex import join, quote

import copier
import pytest

from tests.template.quick_copier import copier_command, doctor_command
from tests.template.versions import IDENTITY, commit, edit
from tools.external import uv

Tool = Callable[..., str]

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "run-many-workers.md").read_text()
STUBS = {
    "uvx": 'shift\nexec {copier} "$@"',
    "uv": '[ "$1" = lock ] || exec {uv} "$@"',
    "make": '[ "$1" != update ] || exec {doctor} any_worker --update',
}
"""Stubs for slow commands of the loop that other tests run."""


@pytest.mark.timeout(180)  # runs Copier six times
def test_the_loop_updates_workers_and_reports_conflicts(thin_template: Path, tmp_path: Path, tool: Tool) -> None:
    """Each worker gets a branch with the newest version; a worker with conflicts is reported and stays unchanged."""
    template, project, scripts = tmp_path / "template", tmp_path / "project", tmp_path / "bin"
    tool("git", "clone", "--quiet", thin_template, template, cwd=tmp_path)
    tool("git", "tag", "v0.1.0", cwd=template)
    copier.run_copy(str(template), project, data={"service_name": "any-worker"}, defaults=True, quiet=True)
    tool("git", "init", "--quiet", cwd=project)
    for name, goal in (("plain", "help"), ("edited", "lint")):
        edit(project / "Makefile", "DEFAULT_GOAL := help", f"DEFAULT_GOAL := {goal}")
        commit(project, tool)
        tool("git", "clone", "--quiet", "--bare", project, tmp_path / name, cwd=tmp_path)
    edit(template / "template" / "Makefile.jinja", "DEFAULT_GOAL := help", "DEFAULT_GOAL := test")
    commit(template, tool)
    tool("git", "tag", "v0.1.1", cwd=template)
    scripts.mkdir()
    commands = {"copier": join(copier_command()), "doctor": join(doctor_command()), "uv": quote(uv())}
    for name, script in STUBS.items():
        (scripts / name).write_text(f"#!/bin/sh\n{script.format_map(commands)}\n")
        (scripts / name).chmod(0o755)
    (tmp_path / "workers.txt").write_text(f"{tmp_path / 'edited'}\n{tmp_path / 'plain'}\n")
    loop = PAGE.split("```bash\n")[1].split("```")[0]

    environment = os.environ | IDENTITY | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    result = subprocess.run(
        ["bash", "-c", loop], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )

    (output,) = result.stdout.splitlines()
    assert output.startswith(f"{tmp_path / 'edited'} needs a hand: No make command works until the Makefile is merged.")
    assert tool("git", "branch", "--list", "template", cwd=tmp_path / "edited") == ""
    assert '_commit: "v0.1.1"' in tool("git", "show", "template:.copier-answers.yml", cwd=tmp_path / "plain")
