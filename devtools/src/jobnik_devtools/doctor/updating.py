"""Bringing what is new in the template."""

import subprocess
import sys
from collections.abc import Mapping

from jobnik_devtools.doctor.findings import CannotCheckError, RefusedError
from jobnik_devtools.doctor.ownership import WRITTEN_ONCE, is_written_once
from jobnik_devtools.doctor.project import Project, find_uv
from jobnik_devtools.doctor.rendering import ANSWERS, COPIER, Template


def update(project: Project) -> int:
    """Run `copier update`, and return its exit code.

    That leaves the files alone that are written once. They follow the template only while all of them are as it
    rendered them: somebody who has begun to write is never given half of another example.

    Raises:
        RefusedError: something is not committed; nothing was changed.
        CannotCheckError: there is no git, or the template cannot be read; nothing was changed.
    """
    status = project.run("git", "status", "--porcelain")
    if status.returncode != 0:
        raise CannotCheckError("git does not know this folder", "git init, and commit everything")
    if status.stdout:
        raise RefusedError(f"commit or stash these first\n{status.stdout.rstrip()}")
    rendered = _example(Template(project, _answers_of_the_example(project)))
    follow = all(_says(project, name, text) for name, text in rendered.items())
    command = [find_uv(), *COPIER, "update", "--defaults"]
    code = subprocess.run(command, cwd=project.root, check=False).returncode  # noqa: S603 as the doctor's checks
    if follow and code == 0 and (newest := _example(Template(project))) != rendered:
        _bring(project, rendered, newest)
        sys.stdout.write("Nobody has changed the example, so it follows the template, too.\n")
    return code


def _answers_of_the_example(project: Project) -> str | None:
    """Return the answers of the commit that last touched the example; None for those of today.

    An update by Copier alone, as a bot makes it, moves the answers on and leaves the example behind.
    """
    # To git an asterisk stands for slashes as well, as it does to fnmatch.
    commit = project.run("git", "log", "-1", "--format=%H", "--", *WRITTEN_ONCE).stdout.strip()
    then = project.run("git", "show", f"{commit}:./{ANSWERS}")
    return then.stdout if commit and then.returncode == 0 else None


def _example(template: Template) -> Mapping[str, str]:
    return {name: text for name, text in template.followed().files.items() if is_written_once(name)}


def _says(project: Project, name: str, text: str) -> bool:
    file = project.root / name
    return file.is_file() and file.read_text("utf-8", "replace") == text


def _bring(project: Project, old: Mapping[str, str], new: Mapping[str, str]) -> None:
    for name in old.keys() - new.keys():
        (project.root / name).unlink()
    for name, text in new.items():
        (project.root / name).parent.mkdir(parents=True, exist_ok=True)
        (project.root / name).write_text(text, "utf-8")
