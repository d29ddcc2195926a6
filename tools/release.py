"""`make release VERSION=0.2.0`: set the version everywhere, date the changelog, commit, and tag.

The release is prepared in a separate worktree. main moves to it only when every step has succeeded, so a failure leaves
this tree, its branch and its tags unchanged. Nothing is pushed; the program prints the command for that.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from jobnik_devtools.environments import clean_environment

from tools.external import MissingProgramError, uv
from tools.snapshot import ROOT

VERSION_PATTERNS = {
    "sdk/pyproject.toml": r'^version = "(.+)"$',
    "devtools/pyproject.toml": r'^version = "(.+)"$',
    "reference_manager/pyproject.toml": r'^version = "(.+)"$',
    "reference_manager/helm/Chart.yaml": r'^(?:version|appVersion): "?([^"\n]+)"?$',
    "copier.yml": r'^jobnik_version: .*default: "(.+)" }$',
    "docs/how-to/build-an-image.md": r"jobnik-manager:(\d+\.\d+\.\d+)",
    "docs/how-to/run-the-manager.md": r"jobnik-manager:(\d+\.\d+\.\d+)",
}
"""The files that contain the version, with a pattern that finds it. uv.lock and the generated references follow."""

CHANGELOG = "CHANGELOG.md"
UNRELEASED = "## Unreleased"


class ReleaseError(Exception):
    """The release failed and nothing has changed. The message says why and what to do."""


def release(version: str) -> str:
    """Release a version.

    Returns:
        The name of the tag.

    Raises:
        ReleaseError: The release is not possible, or a step failed.
        MissingProgramError: uv is not installed.
    """
    tag = f"v{version}"
    _check(version, tag)
    with _worktree() as tree:
        for name, pattern in VERSION_PATTERNS.items():
            _set_version(tree / name, pattern, version)
        _date_changelog(tree / CHANGELOG, version)
        _run(uv(), "lock", "--quiet", cwd=tree)
        _run(uv(), "run", "--quiet", "--frozen", "python", "-m", "tools.docs", cwd=tree)
        _run("git", "commit", "--quiet", "--all", "--message", f"Release {version}", cwd=tree)
        commit = _run("git", "rev-parse", "HEAD", cwd=tree)
    _run("git", "tag", "--annotate", "--message", f"Jobnik {version}", tag, commit)
    try:
        _run("git", "merge", "--quiet", "--ff-only", commit)
    except BaseException:
        _run("git", "tag", "--delete", tag)
        raise
    return tag


def _check(version: str, tag: str) -> None:
    """Check that the release is possible before changing anything."""
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", version):
        raise ReleaseError(f"{version or 'Nothing'} is not a version: give three numbers, such as VERSION=0.2.0.")
    branch = _run("git", "branch", "--show-current")
    if branch != "main":
        current = f"the branch is {branch}" if branch else "no branch is checked out"
        raise ReleaseError(f"Releases are made on main, but {current}: run `git switch main` first.")
    if changed := _run("git", "status", "--porcelain"):
        raise ReleaseError(f"Commit, remove or ignore these uncommitted files, then try again:\n{changed}")
    released = [name.removeprefix("v") for name in _run("git", "tag", "--list", "v*.*.*").split()]
    if version in released:
        raise ReleaseError(f"{tag} is already released: give a newer version.")
    newest = max(released, key=_order, default=_current_version())
    if _order(version) < _order(newest):
        raise ReleaseError(f"{version} is not newer than {newest}: give a newer version.")
    if not _unreleased((ROOT / CHANGELOG).read_text()):
        raise ReleaseError(
            f"{CHANGELOG} has no unreleased entries: describe the changes for users below `{UNRELEASED}`, commit, then "
            "try again."
        )


def _order(version: str) -> tuple[int, ...]:
    """Return the sort key of a version. An invalid version comes first."""
    return tuple(int(part) for part in version.split(".")) if re.fullmatch(r"[\d.]*\d", version) else ()


def _current_version() -> str:
    name = "sdk/pyproject.toml"
    return re.findall(VERSION_PATTERNS[name], (ROOT / name).read_text(), re.MULTILINE)[0]


def _unreleased(changelog: str) -> list[str]:
    """Return the unreleased entries of the changelog."""
    section = changelog.partition(f"\n{UNRELEASED}\n")[2].partition("\n## ")[0]
    return re.findall(r"^- .+", section, re.MULTILINE)


def _set_version(path: Path, pattern: str, version: str) -> None:
    text = path.read_text()
    if not re.search(pattern, text, re.MULTILINE):
        raise ReleaseError(f"No version found in {path.name}: correct VERSION_PATTERNS in tools/release.py.")
    path.write_text(
        re.sub(pattern, lambda found: found[0].replace(found[1], version), text, flags=re.MULTILINE), newline="\n"
    )


def _date_changelog(path: Path, version: str) -> None:
    dated = f"## {version} - {datetime.now(UTC).date()}"
    path.write_text(path.read_text().replace(f"\n{UNRELEASED}\n", f"\n{dated}\n"), newline="\n")


@contextmanager
def _worktree() -> Generator[Path]:
    """Check out the newest commit in a temporary worktree."""
    with tempfile.TemporaryDirectory(prefix="jobnik-release-") as folder:
        tree = Path(folder).resolve() / "tree"
        _run("git", "worktree", "add", "--quiet", "--detach", str(tree))
        try:
            yield tree
        finally:
            _run("git", "worktree", "remove", "--force", str(tree))


def _run(*command: str, cwd: Path = ROOT) -> str:
    result = subprocess.run(command, cwd=cwd, env=clean_environment(), capture_output=True, text=True, check=False)
    if result.returncode != 0:
        output = (result.stdout + result.stderr).strip()
        raise ReleaseError(f"`{' '.join(command)}` failed, and nothing has changed:\n{output}")
    return result.stdout.strip()


def main() -> int:
    """Release the version given on the command line, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.release", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("version", metavar="VERSION", help="three numbers, such as 0.2.0")
    version: str = parser.parse_args().version
    try:
        tag = release(version)
    except (ReleaseError, MissingProgramError) as error:
        print(error, file=sys.stderr)
        return 1
    print(
        f"{tag} is committed and tagged, but not pushed. Review it with `git show {tag}`, then run\n\n"
        f"  git push --atomic origin main {tag}\n\n"
        f"To undo it, run `git tag --delete {tag} && git reset --hard HEAD~1`."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
