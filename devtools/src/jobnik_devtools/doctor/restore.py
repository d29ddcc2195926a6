"""Restores a file to what the template renders."""

import os
from pathlib import Path

from jobnik_devtools.doctor.findings import RefusedError
from jobnik_devtools.doctor.ownership import with_own_parts
from jobnik_devtools.doctor.project import Project
from jobnik_devtools.doctor.template import ANSWERS, Template


def restore(project: Project, file: str) -> str:
    """Restore a file to what the template renders at the version that the project follows.

    The owner's parts of the file are kept. Contents that git does not have are not overwritten.

    Returns:
        A message that says what was done.

    Raises:
        RefusedError: the template has no such file, or something would be lost; nothing was changed.
        CannotCheckError: the template cannot be read; nothing was changed.
    """
    name = _path_in_project(project, file)
    if name == ANSWERS:
        raise RefusedError(f"{name} is written by Copier; run git restore {name} instead")
    current = Template(project).current()
    if name not in current.files:
        raise RefusedError(f"the template has no {name} at {current.version}")
    path = project.root / name
    if path.resolve() != project.root.resolve() / name or (path.exists() and not path.is_file()):
        raise RefusedError(f"{name} is not a regular file in this project; move it away first")
    text = path.read_text("utf-8", "replace") if path.exists() else ""
    restored = with_own_parts(name, current.files[name], text)
    if restored == text and path.exists():
        return f"{name} already matches the template at {current.version}."
    if path.exists():
        _check_committed(project, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(restored, "utf-8")
    return f"{name} was restored to the template at {current.version}. To see the changes, run git diff {name}"


def _path_in_project(project: Project, file: str) -> str:
    # Not resolved, since that would follow links.
    path = Path(os.path.normpath(project.root / file))
    if not path.is_relative_to(project.root):
        raise RefusedError(f"{file} is not in this project")
    return path.relative_to(project.root).as_posix()


def _check_committed(project: Project, name: str) -> None:
    status = project.run("git", "status", "--porcelain", "--ignored", "--", name)
    if status.returncode != 0 or status.stdout:
        raise RefusedError(f"git does not have the current contents of {name}, which would be lost; commit them first")
