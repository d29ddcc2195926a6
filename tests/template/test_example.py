"""Removing the example as docs/how-to/remove-the-example.md describes."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import copier
import pytest

from tests.template.example import DELETED, EDITED
from tests.template.versions import commit

Tool = Callable[..., str]

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "remove-the-example.md").read_text()
ANSWERS = ".copier-answers.yml"


@pytest.fixture
def project(render: Callable[..., Path], tool: Tool) -> Path:
    """Return a committed project with the example."""
    project = render()
    tool("git", "init", "--quiet", cwd=project)
    commit(project, tool)
    return project


@pytest.fixture
def without(thin_template: Path, tmp_path: Path, project: Path) -> Path:  # noqa: ARG001 - shares its mirrors
    """Return the same project, rendered without the example."""
    data = {"service_name": "thumbnail-worker", "example": False}
    copier.run_copy(str(thin_template), tmp_path / "without", data=data, defaults=True, quiet=True)
    return tmp_path / "without"


def answer(project: Path, *paths: str) -> None:
    """Change the answer `example` to false with the same version of the template, excluding `paths` from the update."""
    copier.run_update(
        project,
        data={"example": False},
        exclude=paths,
        vcs_ref=copier.VcsRef.CURRENT,
        defaults=True,
        overwrite=True,
        quiet=True,
    )


def contents(project: Path) -> dict[str, str]:
    """Return the text of all files of a project, by relative path."""
    found = (path for path in project.rglob("*") if path.is_file() and ".git" not in path.parts)
    return {str(path.relative_to(project)): path.read_text() for path in found}


def test_the_page_lists_the_files_of_the_example(project: Path, without: Path) -> None:
    """The tables of the page list exactly the files that the answer changes."""
    with_it, without_it = contents(project), contents(without)
    changed = {name for name in with_it.keys() | without_it.keys() if with_it.get(name) != without_it.get(name)}

    assert changed == {ANSWERS, *DELETED, *EDITED}
    for heading, names in (("delete", DELETED), ("edit", EDITED)):
        table = PAGE.split(f"\n| {heading} | ")[1].split("\n\n")[0]
        named = re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)
        assert sorted(named) == sorted(name.removeprefix("src/thumbnail_worker/") for name in names)


def test_the_answer_removes_the_example(project: Path, without: Path) -> None:
    """After the answer is changed, the project equals one that was rendered without the example."""
    answer(project, *re.findall(r"--exclude '(\S+)'", PAGE))

    assert contents(project) == contents(without)


def test_the_answer_can_be_recorded_alone(project: Path, tool: Tool) -> None:
    """If the example is already replaced or deleted, the steps of the page change only the answer."""
    for name in DELETED:
        (project / name).unlink()
    (project / DELETED[2]).write_text('"""Mine."""\n')
    (project / EDITED[-1]).write_text('"""Mine, too."""\n')
    commit(project, tool)
    before = contents(project)

    answer(project)
    restore = next(line for line in PAGE.splitlines() if line.startswith("    git restore"))
    tool(*shlex.split(restore), cwd=project)

    changed = before | {ANSWERS: before[ANSWERS].replace("example: true", "example: false")}
    assert contents(project) == changed
