"""`make doctor` and `make update` in git hooks, linked worktrees, and repositories with several projects."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from shlex import join
from typing import Any

import pytest
import yaml

from tests.template.quick_copier import copier_command, doctor_command
from tests.template.versions import IDENTITY, commit, edit, render

Tool = Callable[..., str]

pytestmark = pytest.mark.timeout(120)

HOOK = """#!/bin/sh -e
cd workers/thumbnail-worker
{doctor} thumbnail_worker > $HOME/checked || true
{doctor} thumbnail_worker --restore Dockerfile > $HOME/restored
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder for what the hook prints, which is the user's home."""
    monkeypatch.setenv("COPIER_CACHE_DIR", str(tmp_path / "mirrors"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def template(thin_template: Path, tmp_path: Path, tool: Tool) -> Path:
    """Return a clone of the template, with a release, in a folder whose name needs quoting everywhere."""
    clone = tmp_path / 'it\'s "a" #1 folder, %41' / "template"
    clone.parent.mkdir()
    tool("git", "clone", "--quiet", thin_template, clone, cwd=tmp_path)
    tool("git", "tag", "v0.1.0", cwd=clone)
    return clone


@pytest.fixture
def repository(template: Path, tmp_path: Path, tool: Tool) -> Path:
    """Return a repository with a project in a folder, and other folders."""
    repository = tmp_path / "repository"
    render(template, repository / "workers" / "thumbnail-worker")
    for number in range(5):
        (repository / f"other-{number}").mkdir()
        (repository / f"other-{number}" / "file").write_text("before\n")
    tool("git", "init", "--quiet", cwd=repository)
    commit(repository, tool)
    return repository


def test_the_doctor_in_a_hook_leaves_the_index_alone(repository: Path, home: Path, tool: Tool) -> None:
    """In a hook git exports its index, which Copier must not use: the answers are those of a call by hand."""
    project = Path("workers", "thumbnail-worker")
    edit(repository / project / "Makefile", "PORT := 8080", "PORT := 9090")
    commit(repository, tool)
    doctor = join(doctor_command())
    by_hand = tool("sh", "-c", f"{doctor} thumbnail_worker || true", cwd=repository / project, HOME=str(home))
    assert "edited in this project: Makefile" in by_hand
    hook = repository / ".git" / "hooks" / "pre-commit"
    hook.write_text(HOOK.format(doctor=doctor))
    hook.chmod(0o755)
    tool("git", "worktree", "add", "--quiet", "linked", cwd=repository)

    for tree, options in ((repository, ["--all"]), (repository / "linked", [])):
        before = tool("git", "ls-files", "--stage", cwd=tree)
        (tree / "other-0" / "file").write_text("staged\n")
        if not options:
            tool("git", "add", "other-0/file", cwd=tree)
        (home / "checked").unlink(missing_ok=True)

        tool("git", "commit", *options, "--message", "A change", cwd=tree, HOME=str(home), **IDENTITY)

        assert (home / "checked").read_text() == by_hand
        assert (home / "restored").read_text() == "Dockerfile already matches the template at v0.1.0.\n"
        after = tool("git", "ls-files", "--stage", cwd=tree)
        assert len(after.splitlines()) == len(before.splitlines())
        assert [line for line in after.splitlines() if line not in before] == [
            line for line in after.splitlines() if line.endswith("other-0/file")
        ]
        assert tool("git", "show", "--format=", "--name-only", cwd=tree) == "other-0/file\n"
        assert tool("git", "status", "--porcelain", "--", "other-0", "workers", cwd=tree) == ""


def update(project: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run `make update` of this working tree."""
    # A variable of the interpreter counts only at its start.
    doctor = [sys.executable, "-m", "jobnik_devtools.doctor"] if environment else doctor_command()
    return subprocess.run(
        [*doctor, "thumbnail_worker", "--update"],
        cwd=project,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def release(template: Path, tool: Tool) -> None:
    """Release a newer version of the template, with other documents."""
    edit(template / "template" / "Dockerfile.jinja", "# Probes and metrics.", "# Probes and metrics, on one port.")
    edit(template / "template" / "README.md.jinja", "This is a Jobnik worker.", "This is another Jobnik worker.")
    edit(template / "template" / "AGENTS.md.jinja", "For people and for", "For people, and for")
    commit(template, tool)
    tool("git", "tag", "v0.2.0", cwd=template)


def test_an_update_concerns_the_folder_of_the_project(repository: Path, template: Path, tool: Tool) -> None:
    """Changes in other folders are left alone, also if a hook's variables point to another repository."""
    project = repository / "workers" / "thumbnail-worker"
    (repository / "other-1" / "file").write_text("after\n")
    (repository / "other-2" / "new").write_text("new\n")
    (project / "README.md").write_text("# Mine\n")
    tool("git", "commit", "--quiet", "--message", "Mine", ".", cwd=project, **IDENTITY)
    release(template, tool)
    hook = {"GIT_DIR": str(template / ".git"), "GIT_INDEX_FILE": str(template / ".git" / "index"), "GIT_PREFIX": "x/"}

    result = update(project, **hook, PYTHONWARNINGS="error")

    assert result.returncode == 0, result.stderr
    assert "on one port" in (project / "Dockerfile").read_text()
    assert "<<<<<<<" not in "".join(path.read_text() for path in project.rglob("*") if path.is_file())
    assert (project / "README.md").read_text() == "# Mine\n"
    assert "For people, and for" in (project / "AGENTS.md").read_text()
    assert result.stdout.endswith("so they were updated as well: AGENTS.md\n")
    assert (repository / "other-1" / "file").read_text() == "after\n"
    assert tool("git", "status", "--porcelain", cwd=template) == ""
    changed = tool("git", "status", "--porcelain", cwd=repository).split()[1::2]
    assert set(changed) >= {"other-1/file", "other-2/new", "workers/thumbnail-worker/Dockerfile"}

    (project / "new").write_text("new\n")
    again = update(project)
    assert again.returncode == 1
    assert "?? workers/thumbnail-worker/new" in again.stderr
    assert "other-1" not in again.stderr


def test_a_renamed_worker_is_refused_before_anything_changes(repository: Path, template: Path, tool: Tool) -> None:
    """Copier would render a second package. The message says how to rename, and after that an update works."""
    project = repository / "workers" / "thumbnail-worker"
    answers = project / ".copier-answers.yml"
    release(template, tool)
    command = [*copier_command(), "update", "--defaults", "--data", "service_name=picture-worker"]
    plain = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert plain.returncode != 0
    assert "The name of this project is thumbnail-worker, and an update cannot change it." in plain.stderr
    assert tool("git", "status", "--porcelain", cwd=repository) == ""

    edit(answers, 'service_name: "thumbnail-worker"', 'service_name: "picture-worker"')
    commit(repository, tool)
    result = update(project)
    assert result.returncode == 1
    assert result.stderr == (
        "Nothing was updated: .copier-answers.yml has the name picture-worker, but the package is thumbnail_worker. "
        "Rename it first, in one commit: run git mv src/thumbnail_worker src/picture_worker, "
        "and replace the name in all files\n"
    )
    assert tool("git", "status", "--porcelain", cwd=repository) == ""

    tool("git", "mv", "src/thumbnail_worker", "src/picture_worker", cwd=project)
    replace = (
        "git ls-files -z | xargs -0 sed -i 's/thumbnail-worker/picture-worker/g; s/thumbnail_worker/picture_worker/g'"
    )
    tool("sh", "-c", replace, cwd=project)
    commit(repository, tool)
    tool(*copier_command(), "update", "--defaults", cwd=project)
    assert not (project / "src" / "thumbnail_worker").exists()
    assert "on one port" in (project / "Dockerfile").read_text()
    found: dict[str, Any] = yaml.safe_load(answers.read_text())
    assert (found["service_name"], found["_commit"]) == ("picture-worker", "v0.2.0")


def test_the_reason_why_a_template_cannot_be_read_is_shown(repository: Path, template: Path) -> None:
    """Copier treats a repository that git refuses as a plain folder, so the doctor asks git."""
    (template / ".git" / "HEAD").write_text("broken\n")

    command = [*doctor_command(), "thumbnail_worker"]
    project = repository / "workers" / "thumbnail-worker"
    printed = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False).stdout

    assert f"the template at {template} cannot be read: not a git repository" in printed


def test_a_renamed_worker_of_an_older_version_is_refused(template: Path, tmp_path: Path, tool: Tool) -> None:
    """A project that does not record its package is compared by its recorded name."""
    project = render(template, tmp_path / "thumbnail-worker")
    answers = project / ".copier-answers.yml"
    edit(answers, 'package_name: "thumbnail_worker"\n', "")
    tool("git", "init", "--quiet", cwd=project)
    commit(project, tool)
    release(template, tool)
    command = [*copier_command(), "update", "--defaults"]

    renamed = [*command, "--data", "service_name=picture-worker"]
    refused = subprocess.run(renamed, cwd=project, capture_output=True, text=True, check=False)
    assert "The name of this project is thumbnail-worker, and an update cannot change it." in refused.stderr
    assert tool("git", "status", "--porcelain", cwd=project) == ""

    assert "MissingFileWarning" not in tool(*command, cwd=project)
    assert yaml.safe_load(answers.read_text())["package_name"] == "thumbnail_worker"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
def test_the_reason_why_a_project_cannot_be_updated_is_shown(repository: Path) -> None:
    """Git refuses a repository that belongs to another user."""
    for path in (repository, *repository.rglob("*")):
        os.chown(path, 12345, 12345, follow_symlinks=False)

    result = update(repository / "workers" / "thumbnail-worker")

    assert result.stderr.startswith("Nothing was updated: git cannot read this folder: detected dubious ownership in")
    assert result.returncode == 1
