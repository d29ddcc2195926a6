"""What the tests of releases and updates do to repositories: edit, commit."""

import re
from collections.abc import Callable
from pathlib import Path

Tool = Callable[..., str]

IDENTITY = {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "tests"), ("EMAIL", "tests@localhost"))
}


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
