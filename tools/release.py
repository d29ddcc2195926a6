"""`make release VERSION=0.2.0`: one version everywhere, a dated changelog, a commit and its tag.

All of it happens in a worktree beside this one. Only when it is whole does main move to it, so whatever fails on the
way leaves this tree, its branch and its tags as they were. Nothing is pushed: it prints the command that does.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from tools.external import MissingProgramError, uv
from tools.snapshot import ROOT

PLACES = {
    "sdk/pyproject.toml": r'^version = "(.+)"$',
    "devtools/pyproject.toml": r'^version = "(.+)"$',
    "reference_manager/pyproject.toml": r'^version = "(.+)"$',
    "reference_manager/helm/Chart.yaml": r'^(?:version|appVersion): "?([^"\n]+)"?$',
    "copier.yml": r'^jobnik_version: .*default: "(.+)" }$',
    "docs/how-to/build-an-image.md": r"jobnik-manager:(\d+\.\d+\.\d+)",
    "docs/how-to/run-the-manager.md": r"jobnik-manager:(\d+\.\d+\.\d+)",
}
"""Where the version stands: each file, and what surrounds it there. uv.lock and the generated references follow."""

CHANGELOG = "CHANGELOG.md"
UNRELEASED = "## Unreleased"

# They would make uv act on this environment instead of on the worktree's.
_OURS = {"VIRTUAL_ENV", "UV_FROZEN", "UV_PROJECT_ENVIRONMENT"}


class ReleaseError(Exception):
    """There is no release; the message says why and what to do. Nothing has changed."""


def release(version: str) -> str:
    """Make the release of a version.

    Returns:
        The name of its tag.

    Raises:
        ReleaseError: It cannot be made, or a step of it failed.
        MissingProgramError: uv is not installed.
    """
    tag = f"v{version}"
    _check(version, tag)
    with _worktree() as tree:
        for name, pattern in PLACES.items():
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
    """Refuse what could not become a release, before anything is done."""
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", version):
        raise ReleaseError(f"{version or 'Nothing'} is no version: give three numbers, such as VERSION=0.2.0.")
    branch = _run("git", "branch", "--show-current")
    if branch != "main":
        raise ReleaseError(f"This is {branch or 'no branch'}: releases are made on main, so `git switch main` first.")
    if changed := _run("git", "status", "--porcelain"):
        raise ReleaseError(f"Commit, remove or ignore what is not committed, then try again:\n{changed}")
    released = [name.removeprefix("v") for name in _run("git", "tag", "--list", "v*.*.*").split()]
    if version in released:
        raise ReleaseError(f"{tag} is released: what was released stays as it is, so give a newer version.")
    newest = max(released, key=_order, default=_current_version())
    if _order(version) < _order(newest):
        raise ReleaseError(f"{version} is not newer than {newest}: give a newer version.")
    if not _unreleased((ROOT / CHANGELOG).read_text()):
        raise ReleaseError(
            f"{CHANGELOG} says nothing new: write what changes for users as entries below `{UNRELEASED}`, commit it, "
            "then try again."
        )


def _order(version: str) -> tuple[int, ...]:
    """Turn a version into what it is compared by; what is none comes before all."""
    return tuple(int(part) for part in version.split(".")) if re.fullmatch(r"[\d.]*\d", version) else ()


def _current_version() -> str:
    name = "sdk/pyproject.toml"
    return re.findall(PLACES[name], (ROOT / name).read_text(), re.MULTILINE)[0]


def _unreleased(changelog: str) -> list[str]:
    """Find the entries that no release has yet."""
    section = changelog.partition(f"\n{UNRELEASED}\n")[2].partition("\n## ")[0]
    return re.findall(r"^- .+", section, re.MULTILINE)


def _set_version(path: Path, pattern: str, version: str) -> None:
    text = path.read_text()
    if not re.search(pattern, text, re.MULTILINE):
        raise ReleaseError(f"{path.name} has no version where it is looked for: correct PLACES in tools/release.py.")
    path.write_text(
        re.sub(pattern, lambda found: found[0].replace(found[1], version), text, flags=re.MULTILINE), newline="\n"
    )


def _date_changelog(path: Path, version: str) -> None:
    dated = f"## {version} - {datetime.now(UTC).date()}"
    path.write_text(path.read_text().replace(f"\n{UNRELEASED}\n", f"\n{dated}\n"), newline="\n")


@contextmanager
def _worktree() -> Generator[Path]:
    """A checkout of the newest commit, for a while."""
    with tempfile.TemporaryDirectory(prefix="jobnik-release-") as folder:
        tree = Path(folder).resolve() / "tree"
        _run("git", "worktree", "add", "--quiet", "--detach", str(tree))
        try:
            yield tree
        finally:
            _run("git", "worktree", "remove", "--force", str(tree))


def _run(*command: str, cwd: Path = ROOT) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in _OURS}
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        said = (result.stdout + result.stderr).strip()
        raise ReleaseError(f"`{' '.join(command)}` failed, and nothing has changed:\n{said}")
    return result.stdout.strip()


def main() -> int:
    """Release what the command line asks for, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.release", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("version", metavar="VERSION", help="three numbers, such as 0.2.0")
    version: str = parser.parse_args().version
    try:
        tag = release(version)
    except (ReleaseError, MissingProgramError) as error:
        print(error, file=sys.stderr)
        return 1
    print(
        f"{tag} is committed and tagged, and nobody has it yet. Look at it with `git show {tag}`, then\n\n"
        f"  git push --atomic origin main {tag}\n\n"
        f"or take it back with `git tag --delete {tag} && git reset --hard HEAD~1`."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
