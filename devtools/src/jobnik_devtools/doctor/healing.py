"""Putting a file back to what the template renders."""

import os
from pathlib import Path

from jobnik_devtools.doctor.findings import RefusedError
from jobnik_devtools.doctor.ownership import with_yours
from jobnik_devtools.doctor.project import Project
from jobnik_devtools.doctor.rendering import ANSWERS, Template


def heal(project: Project, file: str) -> str:
    """Put a file back to what the template renders at the version that the project follows, and say what was done.

    What is the project's own in it stays, and what git does not have is not overwritten.

    Raises:
        RefusedError: the template has no such file, or something would be lost; nothing was changed.
        CannotCheckError: the template cannot be read; nothing was changed.
    """
    name = _name_within(project, file)
    if name == ANSWERS:
        raise RefusedError(f"{name} is Copier's own, which git brings back as it was: git restore {name}")
    followed = Template(project).followed()
    if name not in followed.files:
        raise RefusedError(f"the template has no {name} at {followed.version}")
    path = project.root / name
    if path.resolve() != project.root.resolve() / name or (path.exists() and not path.is_file()):
        raise RefusedError(f"{name} is no plain file here: move it away first")
    here = path.read_text("utf-8", "replace") if path.exists() else ""
    healed = with_yours(name, followed.files[name], here)
    if healed == here and path.exists():
        return f"{name} is what the template renders at {followed.version}: nothing to do."
    if path.exists():
        _see_that_git_has(project, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(healed, "utf-8")
    return f"{name} is again what the template renders at {followed.version}. What changed: git diff {name}"


def _name_within(project: Project, file: str) -> str:
    # Not resolved, since that would follow links.
    path = Path(os.path.normpath(project.root / file))
    if not path.is_relative_to(project.root):
        raise RefusedError(f"{file} is not in this project")
    return path.relative_to(project.root).as_posix()


def _see_that_git_has(project: Project, name: str) -> None:
    status = project.run("git", "status", "--porcelain", "--ignored", "--", name)
    if status.returncode != 0 or status.stdout:
        raise RefusedError(f"git does not have {name} as it is now, and what you wrote would be lost: commit it first")
