"""A snapshot commits a working tree to a separate repository."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tools.snapshot import take_snapshot


@pytest.fixture
def tree(tmp_path: Path, tool: Callable[..., str]) -> Path:
    """Return a repository with a committed, a changed, a new and an ignored file."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / ".gitignore").write_text("ignored\n")
    (tree / "changed").write_text("before")
    tool("git", "init", "--quiet", cwd=tree)
    tool("git", "add", "--all", cwd=tree)
    tool("git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "--quiet", "-m", "Start", cwd=tree)
    for name in ("changed", "new", "ignored"):
        (tree / name).write_text("after")
    return tree


def test_a_snapshot_contains_uncommitted_changes(tree: Path, tmp_path: Path, tool: Callable[..., str]) -> None:
    """A snapshot contains changed and new files but not ignored ones, and the original repository stays unchanged."""
    before = tool("git", "status", "--porcelain", cwd=tree)

    commit = take_snapshot(tmp_path / "snapshot", tree)

    assert (tmp_path / "snapshot" / "changed").read_text() == "after"
    assert tool("git", "ls-tree", "--name-only", commit, cwd=tmp_path / "snapshot").split() == [
        ".gitignore",
        "changed",
        "new",
    ]
    assert tool("git", "status", "--porcelain", cwd=tree) == before


def test_the_same_content_gives_the_same_commit(tree: Path, tmp_path: Path) -> None:
    """An unchanged tree gives the same commit at any destination, and a changed tree gives another one."""
    first = take_snapshot(tmp_path / "one", tree)

    assert take_snapshot(tmp_path / "one", tree) == first
    assert take_snapshot(tmp_path / "two", tree) == first

    (tree / "new").unlink()
    assert take_snapshot(tmp_path / "one", tree) != first
    assert not (tmp_path / "one" / "new").exists()


def test_a_folder_that_is_not_a_snapshot_is_refused(tree: Path, tmp_path: Path) -> None:
    """A destination with other files is refused."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")

    with pytest.raises(FileExistsError, match="is not a snapshot"):
        take_snapshot(tmp_path / "mine", tree)
