"""Commit this working tree, including uncommitted changes, to a separate git repository.

Copier and uv read templates and packages from commits. The tests and the demo render from a snapshot, so that they use
exactly the files of this tree, committed or not. The same content always gives the same commit, so that caches keyed by
the commit stay valid. `python -m tools.snapshot DEST` prints the commit.
"""

import argparse
import subprocess
from pathlib import Path

from jobnik_devtools.environments import clean_environment

ROOT = Path(__file__).resolve().parent.parent


def take_snapshot(destination: Path, source: Path = ROOT) -> str:
    """Commit the files of `source`, except ignored ones, to the repository at `destination`.

    Creates `destination` if it does not exist. If it holds an earlier snapshot, adds a commit unless nothing changed.

    Returns:
        The full hash of the commit, which is also checked out in `destination`.

    Raises:
        FileExistsError: `destination` contains something other than a snapshot.
    """
    if not (destination / ".git").is_dir():
        if destination.exists() and any(destination.iterdir()):
            raise FileExistsError(f"{destination} is not a snapshot; give a folder that is empty or does not exist")
        _git("init", "--quiet", "--initial-branch", "main", str(destination))
    repository = ["--git-dir", str(destination / ".git"), "--work-tree", str(source)]
    _git(*repository, "add", "--all", "--", str(source))
    if not _is_current(repository):
        _git(*repository, "commit", "--quiet", "--no-verify", "--no-gpg-sign", "--message", "Snapshot of a tree")
    _git("-C", str(destination), "reset", "--quiet", "--hard")
    _git("-C", str(destination), "clean", "--quiet", "--force", "-d")
    return _git("-C", str(destination), "rev-parse", "HEAD")


def _is_current(repository: list[str]) -> bool:
    """Return whether the newest commit equals the index. False if there is no commit."""
    try:
        return not _git(*repository, "diff", "--cached", "--name-only", "HEAD")
    except subprocess.CalledProcessError:
        return False


def _git(*arguments: str) -> str:
    # With a fixed author and date, the hash of the commit depends on its content alone.
    identity = {
        f"GIT_{role}_{what}": value
        for role in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", "snapshot"), ("EMAIL", "snapshot@localhost"), ("DATE", "2000-01-01T00:00:00Z"))
    }
    command = ["git", "-c", "core.autocrlf=false", "-c", "core.safecrlf=false", *arguments]
    environment = clean_environment() | identity
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.strip()


def main() -> None:
    """Take a snapshot at the given destination and print the commit."""
    parser = argparse.ArgumentParser(prog="python -m tools.snapshot", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("destination", metavar="DEST", type=Path, help="a new or empty folder, or an earlier snapshot")
    print(take_snapshot(parser.parse_args().destination.resolve()))


if __name__ == "__main__":
    main()
