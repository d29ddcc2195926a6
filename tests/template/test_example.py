"""How to be rid of the example, as docs/how-to/remove-the-example.md says it."""

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
    """Give a project with the example, committed."""
    project = render()
    tool("git", "init", "--quiet", cwd=project)
    commit(project, tool)
    return project


@pytest.fixture
def without(thin_template: Path, tmp_path: Path, project: Path) -> Path:  # noqa: ARG001 - after it: the same mirrors
    """Give the same project, rendered without the example."""
    data = {"service_name": "thumbnail-worker", "example": False}
    copier.run_copy(str(thin_template), tmp_path / "without", data=data, defaults=True, quiet=True)
    return tmp_path / "without"


def answer(project: Path, *let_in: str) -> None:
    """Answer that the example is not wanted, by the same version of the template, and let it in to what is yours."""
    copier.run_update(
        project,
        data={"example": False},
        exclude=let_in,
        vcs_ref=copier.VcsRef.CURRENT,
        defaults=True,
        overwrite=True,
        quiet=True,
    )


def contents(project: Path) -> dict[str, str]:
    """Read all files of a project, by their path within it."""
    found = (path for path in project.rglob("*") if path.is_file() and ".git" not in path.parts)
    return {str(path.relative_to(project)): path.read_text() for path in found}


def test_the_page_names_what_is_the_examples(project: Path, without: Path) -> None:
    """Its tables have every file that the answer changes, and no other."""
    with_it, without_it = contents(project), contents(without)
    changed = {name for name in with_it.keys() | without_it.keys() if with_it.get(name) != without_it.get(name)}

    assert changed == {ANSWERS, *DELETED, *EDITED}
    for heading, names in (("delete", DELETED), ("edit", EDITED)):
        table = PAGE.split(f"\n| {heading} | ")[1].split("\n\n")[0]
        named = re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)
        assert sorted(named) == sorted(name.removeprefix("src/thumbnail_worker/") for name in names)


def test_the_answer_removes_it_afterwards(project: Path, without: Path) -> None:
    """A project whose answer is changed is the one that would have been rendered without the example."""
    answer(project, *re.findall(r"--exclude '(\S+)'", PAGE))

    assert contents(project) == contents(without)


def test_the_answer_alone_can_be_told(project: Path, tool: Tool) -> None:
    """What was written in the example's place, and what was deleted, stays so, and only the answer changes."""
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
