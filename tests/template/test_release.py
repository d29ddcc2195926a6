"""`make release` sets the version everywhere, dates the changelog, commits and tags, or changes nothing."""

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from tests.template.versions import clone_to_release, commit, edit

Tool = Callable[..., str]


def refuse(clone: Path, version: str, **environment: str) -> str:
    """Request a release that is refused, and return the error message."""
    result = subprocess.run(
        [sys.executable, "-m", "tools.release", version],
        cwd=clone,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1, result.stdout
    return result.stderr


@pytest.mark.timeout(180)
def test_a_release_sets_the_version_everywhere(released: Path, tool: Tool) -> None:
    """In the tagged commit, packages, template, chart, lock file, references and changelog have the new version."""
    tag = tool("git", "describe", "--exact-match", "main", cwd=released).strip()
    version = tag.removeprefix("v")
    packages = ("sdk", "devtools", "reference_manager")
    stated = [tomllib.loads((released / name / "pyproject.toml").read_text())["project"] for name in packages]
    locked = tomllib.loads((released / "uv.lock").read_text())["package"]
    chart = yaml.safe_load((released / "reference_manager/helm/Chart.yaml").read_text())
    questions = yaml.safe_load((released / "copier.yml").read_text())

    assert [project["version"] for project in stated] == [version] * 3
    names = {project["name"] for project in stated}
    assert [package["version"] for package in locked if package["name"] in names] == [version] * 3
    assert (chart["version"], chart["appVersion"], questions["jobnik_version"]["default"]) == (version,) * 3
    assert f'"version": "{version}"' in (released / "docs/reference/openapi.json").read_text()
    page = (released / "docs/how-to/run-the-manager.md").read_text()
    assert f"jobnik-manager:{version} " in page
    assert "http://jobnik-manager:8080`" in page
    assert f"\n## {version} - {datetime.now(UTC).year}-" in (released / "CHANGELOG.md").read_text()
    assert tool("git", "cat-file", "-t", tag, cwd=released).strip() == "tag"
    assert tool("git", "status", "--porcelain", cwd=released) == ""
    assert tool("git", "worktree", "list", cwd=released).count("\n") == 1
    assert "is already released: give a newer version" in refuse(released, version)


@pytest.mark.parametrize("version", ["0.2", "1.0.0rc1", "v1.0.0", "1.0.0+local", "01.0.0", ""])
def test_an_invalid_version_is_refused(released: Path, version: str) -> None:
    """A version must have three numbers, which PEP 440, Helm and SemVer all accept."""
    assert "is not a version: give three numbers, such as VERSION=0.2.0" in refuse(released, version)


def test_a_refused_release_changes_nothing(template: Path, tmp_path: Path, tool: Tool) -> None:
    """An old version, another branch, uncommitted files, an empty changelog or a failing step is refused."""
    clone = clone_to_release(template, tmp_path / "clone", tool)
    tool("git", "tag", "v3.2.1", cwd=clone)
    before = tool("git", "rev-parse", "main", cwd=clone)
    assert "v3.2.1 is already released" in refuse(clone, "3.2.1")
    assert "3.2.0 is not newer than 3.2.1" in refuse(clone, "3.2.0")

    tool("git", "switch", "--quiet", "--create", "feature", cwd=clone)
    assert "Releases are made on main, but the branch is feature: run `git switch main` first" in refuse(clone, "4.0.0")
    tool("git", "switch", "--quiet", "main", cwd=clone)

    (clone / "new.txt").write_text("New.\n")
    assert "uncommitted files, then try again:\n?? new.txt" in refuse(clone, "4.0.0")
    (clone / "new.txt").unlink()

    assert "`false lock --quiet` failed, and nothing has changed" in refuse(clone, "4.0.0", UV="false")
    assert tool("git", "rev-parse", "main", cwd=clone) == before
    assert tool("git", "status", "--porcelain", cwd=clone) == ""
    assert tool("git", "tag", "--list", "v4*", cwd=clone) == ""

    edit(clone / "CHANGELOG.md", "- Something new.\n", "")
    commit(clone, tool)
    assert "CHANGELOG.md has no unreleased entries" in refuse(clone, "4.0.0")


def test_no_file_contains_another_version(released: Path, tool: Tool) -> None:
    """Outside the tests, no file of a release names another version of the SDK, the manager or their charts."""
    version = tool("git", "describe", "--exact-match", "main", cwd=released).strip().removeprefix("v")

    found = tool(
        "git", "grep", "-nIE", r"jobnik[-_a-z]*(:|==|@v?)[0-9]+\.[0-9]+\.[0-9]+", "--", ":!tests", cwd=released
    ).splitlines()

    assert found
    assert all(version in line for line in found), found
