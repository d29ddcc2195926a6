"""Updates a project to the newest version of its template."""

import subprocess
import sys
from collections.abc import Mapping

from jobnik_devtools.doctor.findings import CannotCheckError, RefusedError
from jobnik_devtools.doctor.ownership import WRITTEN_ONCE, is_written_once
from jobnik_devtools.doctor.project import Project, find_uv
from jobnik_devtools.doctor.template import ANSWERS, COPIER, Template


def update(project: Project) -> int:
    """Run `copier update`, and return its exit code.

    Copier does not change the example: the files that are rendered once. They are updated afterwards, but only if the
    owner has changed none of them, so that no project gets half of another example.

    Raises:
        RefusedError: something is not committed; nothing was changed.
        CannotCheckError: the folder is not in a git repository, or the template cannot be read; nothing was changed.
    """
    status = project.run("git", "status", "--porcelain")
    if status.returncode != 0:
        raise CannotCheckError("this folder is not in a git repository. Run git init and commit everything")
    if status.stdout:
        raise RefusedError(f"commit or stash these changes first:\n{status.stdout.rstrip()}")
    rendered = _example(Template(project, _answers_of_example(project)))
    is_unchanged = all(_matches(project, name, text) for name, text in rendered.items())
    command = [find_uv(), *COPIER, "update", "--defaults"]
    code = subprocess.run(command, cwd=project.root, check=False).returncode  # noqa: S603 the command is a constant
    if is_unchanged and code == 0 and (newest := _example(Template(project))) != rendered:
        _replace(project, rendered, newest)
        sys.stdout.write("The example was unchanged, so it was updated as well.\n")
    return code


def _answers_of_example(project: Project) -> str | None:
    """Return the answers at the last commit that changed the example; None for the present ones.

    They differ after an update that ran only Copier, such as an update by a bot: it changes the answers, but not the
    example.
    """
    # In a path of git, as in fnmatch, an asterisk also matches slashes.
    commit = project.run("git", "log", "-1", "--format=%H", "--", *WRITTEN_ONCE).stdout.strip()
    answers = project.run("git", "show", f"{commit}:./{ANSWERS}")
    return answers.stdout if commit and answers.returncode == 0 else None


def _example(template: Template) -> Mapping[str, str]:
    return {name: text for name, text in template.current().files.items() if is_written_once(name)}


def _matches(project: Project, name: str, text: str) -> bool:
    file = project.root / name
    return file.is_file() and file.read_text("utf-8", "replace") == text


def _replace(project: Project, old: Mapping[str, str], new: Mapping[str, str]) -> None:
    for name in old.keys() - new.keys():
        (project.root / name).unlink()
    for name, text in new.items():
        (project.root / name).parent.mkdir(parents=True, exist_ok=True)
        (project.root / name).write_text(text, "utf-8")
