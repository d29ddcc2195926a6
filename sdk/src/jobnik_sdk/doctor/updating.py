"""Bringing what is new in the template."""

import os
import shutil
import subprocess
import sys
from typing import Final

from jobnik_sdk.doctor.findings import CannotCheckError, RefusedError
from jobnik_sdk.doctor.ownership import is_written_once
from jobnik_sdk.doctor.project import Project
from jobnik_sdk.doctor.rendering import COPIER, Template

_WRITTEN_ONCE_TOO: Final = ("--exclude", "!/src", "--exclude", "!/tests", "--exclude", "!/seed.py")
"""The template excludes its owner's files from updates; this lets them in again."""


def update(project: Project) -> int:
    """Run `copier update`, and return its exit code.

    The files that are written once follow the template only while all of them are as it rendered them: somebody who
    has begun to write is never given half of another example.

    Raises:
        RefusedError: something is not committed; nothing was changed.
        CannotCheckError: there is no git, or the template cannot be read; nothing was changed.
    """
    status = project.run("git", "status", "--porcelain")
    if status.returncode != 0:
        raise CannotCheckError("git does not know this folder", "git init, and commit everything")
    if status.stdout:
        raise RefusedError(f"commit or stash these first\n{status.stdout.rstrip()}")
    follow = _is_as_rendered(project)
    if follow:
        sys.stdout.write("Nobody has changed the example, so it follows the template, too.\n")
        sys.stdout.flush()
    uv = os.environ.get("UV") or shutil.which("uv") or "uv"
    command = [uv, *COPIER, "update", "--defaults", *(_WRITTEN_ONCE_TOO if follow else ())]
    return subprocess.run(command, cwd=project.root, check=False).returncode  # noqa: S603 as the doctor's checks


def _is_as_rendered(project: Project) -> bool:
    rendered = Template(project).followed().files
    return all(
        (project.root / name).is_file() and (project.root / name).read_text("utf-8", "replace") == text
        for name, text in rendered.items()
        if is_written_once(name)
    )
