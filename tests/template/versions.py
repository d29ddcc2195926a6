"""The versions of the template: releases, and what there was before the first of them. Projects that follow them."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import copier

from tools.snapshot import ROOT, take_snapshot

Tool = Callable[..., str]

IDENTITY = {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "tests"), ("EMAIL", "tests@localhost"))
}
RENDERED_FROM = (
    ".gitattributes",
    "copier.yml",
    "template",
    "sdk/pyproject.toml",
    "devtools/pyproject.toml",
    "reference_manager/pyproject.toml",
)
BEFORE_THE_FIRST_RELEASE = ("b835154", "2342d42", "4ce48fb", "4a817ec", "be841e8", "b6a3bb1")
"""Commits in which the template was as somebody might have rendered it, the first one included."""
WITHOUT_EMPTY_LINES = BEFORE_THE_FIRST_RELEASE[:5]
"""Those of them whose chart has values without an empty line between them."""


@dataclass(frozen=True)
class Version:
    """A state of the template: its tag in a history for tests, and its revision here, or None: this working tree."""

    tag: str
    revision: str | None

    def __str__(self) -> str:
        return f"{self.tag}-{self.revision}"


def find_versions() -> list[Version]:
    """List all versions that this repository holds, oldest first; a shallow clone or an export has but the last.

    The last is this working tree, as the version just before the next release.
    """
    early = [Version(f"v0.0.{number}", commit) for number, commit in enumerate(BEFORE_THE_FIRST_RELEASE, 1)]
    tags = (_git("tag", "--list", "--sort=version:refname", "v[0-9]*") or "").split()
    here = [version for version in early if _git("cat-file", "-e", f"{version.revision}^{{commit}}") is not None]
    return [*here, *(Version(tag, tag) for tag in tags), Version(f"v{next_version()}.dev0", None)]


def next_version() -> str:
    """Name the version after the one that stands here."""
    found = re.search(r'^version = "(\d+)\.(\d+)\.\d+"$', (ROOT / "sdk" / "pyproject.toml").read_text(), re.MULTILINE)
    assert found
    return f"{found[1]}.{int(found[2]) + 1}.0"


def take_thin_snapshot(repository: Path, source: Path = ROOT) -> None:
    """Commit what rendering reads, and nothing else: Copier clones all of a repository for each rendering.

    Of SDK, devtools and manager there are the versions that a release changes.
    """
    files = repository.with_name("files")
    shutil.rmtree(files, ignore_errors=True)
    for name in RENDERED_FROM:
        if (source / name).exists():
            (files / name).parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (source / name).is_dir() else shutil.copy)(source / name, files / name)
    take_snapshot(repository, files)


def build_history(folder: Path, released: Path, tool: Tool) -> Path:
    """Make a thin repository of all versions, and of the next release as the newest."""
    history, export = folder / "history", folder / "export"
    for version in find_versions():
        if version.revision:
            export.mkdir()
            archive = subprocess.run(["git", "archive", version.revision], cwd=ROOT, stdout=subprocess.PIPE, check=True)
            subprocess.run(["tar", "--extract"], cwd=export, input=archive.stdout, check=True)
        take_thin_snapshot(history, export if version.revision else ROOT)
        tool("git", "tag", version.tag, cwd=history)
        shutil.rmtree(export, ignore_errors=True)
    take_thin_snapshot(history, released)
    tool("git", "tag", tool("git", "describe", "main", cwd=released).strip(), cwd=history)
    return history


def render(template: str | Path, project: Path, *, tag: str | None = None, **answers: object) -> Path:
    """Render a project that is called as its folder is, of the newest version unless told otherwise."""
    data = {"service_name": project.name, **answers}
    copier.run_copy(str(template), project, data=data, vcs_ref=tag, defaults=True, quiet=True)
    return project


def update(project: Path, **answers: object) -> None:
    """Run `copier update` as a bot does: no questions, no trust. Check that it left no conflicts."""
    copier.run_update(project, data=answers, defaults=True, overwrite=True, quiet=True, unsafe=False)
    _assert_no_conflicts(project)


def make_update(project: Path, tool: Tool) -> None:
    """Run what `make update` of this working tree's template does. Check that it left no conflicts."""
    tool(sys.executable, "-m", "jobnik_devtools.doctor", project.name, "--update", cwd=project)
    _assert_no_conflicts(project)


def _assert_no_conflicts(project: Path) -> None:
    assert not list(project.rglob("*.rej"))
    search = ["git", "grep", "--untracked", "-nE", "^(<<<<<<<|=======|>>>>>>>)"]
    found = subprocess.run(search, cwd=project, capture_output=True, text=True, check=False)
    assert found.returncode == 1, found.stdout


def edit(path: Path, old: str, new: str) -> None:
    """Replace the one place where `old` stands."""
    text = path.read_text()
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {path}"
    path.write_text(text.replace(old, new))


def commit(repository: Path, tool: Tool) -> None:
    """Commit everything that lies in a repository."""
    tool("git", "add", "--all", cwd=repository)
    tool("git", "commit", "--quiet", "--allow-empty", "--message", "A change", cwd=repository, **IDENTITY)


def clone_to_release(template: Path, clone: Path, tool: Tool) -> Path:
    """Clone this working tree, with one entry in its changelog that no release has yet."""
    tool("git", "clone", "--quiet", template, clone, cwd=template)
    changelog = clone / "CHANGELOG.md"
    head = re.split(r"^## ", changelog.read_text(), maxsplit=1, flags=re.MULTILINE)[0]
    changelog.write_text(f"{head}## Unreleased\n\n- Something new.\n")
    commit(clone, tool)
    return clone


def _git(*arguments: str) -> str | None:
    """Ask this repository something; None, if it does not know, or is none."""
    result = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return result.stdout if result.returncode == 0 else None
