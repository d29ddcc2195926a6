"""The versions of the template, including those before the first release, and projects that follow them."""

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import copier

from tests.template.quick_copier import doctor_command
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
"""Commits before the first release from which a project may have been rendered."""
WITHOUT_EMPTY_LINES = BEFORE_THE_FIRST_RELEASE[:5]
"""The commits among these whose chart has values without empty lines between them."""


@dataclass(frozen=True)
class Version:
    """A version of the template: its tag in the test history, and its revision, or None for this working tree."""

    tag: str
    revision: str | None

    def __str__(self) -> str:
        return f"{self.tag}-{self.revision}"


def find_versions() -> list[Version]:
    """Return all versions in this repository, oldest first. A shallow clone or an export contains only the last one.

    The last version is this working tree, as the version just before the next release.
    """
    early = [Version(f"v0.0.{number}", commit) for number, commit in enumerate(BEFORE_THE_FIRST_RELEASE, 1)]
    tags = (_git("tag", "--list", "--sort=version:refname", "v[0-9]*") or "").split()
    here = [version for version in early if _git("cat-file", "-e", f"{version.revision}^{{commit}}") is not None]
    return [*here, *(Version(tag, tag) for tag in tags), Version(f"v{next_version()}.dev0", None)]


def next_version() -> str:
    """Return the version after the current one."""
    found = re.search(r'^version = "(\d+)\.(\d+)\.\d+"$', (ROOT / "sdk" / "pyproject.toml").read_text(), re.MULTILINE)
    assert found
    return f"{found[1]}.{int(found[2]) + 1}.0"


def take_thin_snapshot(repository: Path, source: Path = ROOT) -> None:
    """Commit only the files that rendering reads, because Copier clones the repository for each rendering.

    The files of the SDK, the development tools and the manager are those whose version a release changes.
    """
    files = repository.with_name("files")
    shutil.rmtree(files, ignore_errors=True)
    for name in RENDERED_FROM:
        if (source / name).exists():
            (files / name).parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (source / name).is_dir() else shutil.copy)(source / name, files / name)
    take_snapshot(repository, files)


def build_history(folder: Path, released: Path, tool: Tool) -> Path:
    """Create a thin repository of all versions, with the next release as the newest."""
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
    """Render a project that is named after its folder, from the newest version or from `tag`."""
    data = {"service_name": project.name, **answers}
    copier.run_copy(str(template), project, data=data, vcs_ref=tag, defaults=True, quiet=True)
    return project


def update(project: Path, **answers: object) -> None:
    """Run `copier update` as a bot does, without questions or trust, and check that there are no conflicts."""
    copier.run_update(project, data=answers, defaults=True, overwrite=True, quiet=True, unsafe=False)
    _assert_no_conflicts(project)


def make_update(project: Path, tool: Tool) -> None:
    """Run `make update` of this working tree's template, and check that there are no conflicts."""
    tool(*doctor_command(), project.name.replace("-", "_"), "--update", cwd=project)
    _assert_no_conflicts(project)


def _assert_no_conflicts(project: Path) -> None:
    assert not list(project.rglob("*.rej"))
    search = ["git", "grep", "--untracked", "-nE", "^(<<<<<<<|=======|>>>>>>>)"]
    found = subprocess.run(search, cwd=project, capture_output=True, text=True, check=False)
    assert found.returncode == 1, found.stdout


def edit(path: Path, old: str, new: str) -> None:
    """Replace the only occurrence of `old`."""
    text = path.read_text()
    assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times in {path}"
    path.write_text(text.replace(old, new))


def commit(repository: Path, tool: Tool) -> None:
    """Commit all changes in a repository."""
    tool("git", "add", "--all", cwd=repository)
    tool("git", "commit", "--quiet", "--allow-empty", "--message", "A change", cwd=repository, **IDENTITY)


def clone_to_release(template: Path, clone: Path, tool: Tool) -> Path:
    """Clone this working tree and add an unreleased entry to the changelog."""
    tool("git", "clone", "--quiet", template, clone, cwd=template)
    changelog = clone / "CHANGELOG.md"
    head = re.split(r"^## ", changelog.read_text(), maxsplit=1, flags=re.MULTILINE)[0]
    changelog.write_text(f"{head}## Unreleased\n\n- Something new.\n")
    commit(clone, tool)
    return clone


def _git(*arguments: str) -> str | None:
    """Return the output of a git command in this repository, or None if it fails."""
    result = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return result.stdout if result.returncode == 0 else None
