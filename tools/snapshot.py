"""Take this working tree, uncommitted changes included, as a commit of a git repository of its own.

Copier and uv read templates and packages from commits. Whoever wants to render exactly what lies here, committed or
not (the tests, the demo), renders from a snapshot. The same content always gives the same commit, so caches keyed by it
hold. `python -m tools.snapshot DEST` prints the commit.
"""

import argparse
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def take_snapshot(destination: Path, source: Path = ROOT) -> str:
    """Commit what lies in `source`, except what its .gitignore names, to the repository at `destination`.

    A `destination` that does not exist is made; one that holds an earlier snapshot gains a commit if anything changed.

    Returns:
        The full hash of the commit, which is also checked out there.

    Raises:
        FileExistsError: `destination` holds something else than a snapshot.
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
    """Tell whether the newest commit already holds what was added; without any commit it does not."""
    try:
        return not _git(*repository, "diff", "--cached", "--name-only", "HEAD")
    except subprocess.CalledProcessError:
        return False


def _git(*arguments: str) -> str:
    # A git hook exports GIT_DIR and friends, which would lead these commands back into the repository itself; a fixed
    # author and date make the commit's hash a function of its content.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    for role in ("AUTHOR", "COMMITTER"):
        environment |= {
            f"GIT_{role}_NAME": "snapshot",
            f"GIT_{role}_EMAIL": "snapshot@localhost",
            f"GIT_{role}_DATE": "2000-01-01T00:00:00Z",
        }
    command = ["git", "-c", "core.autocrlf=false", "-c", "core.safecrlf=false", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.strip()


def main() -> None:
    """Take the snapshot that the command line asks for, and print its commit."""
    parser = argparse.ArgumentParser(prog="python -m tools.snapshot", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("destination", metavar="DEST", type=Path, help="a folder that is new, empty or a snapshot")
    print(take_snapshot(parser.parse_args().destination.resolve()))


if __name__ == "__main__":
    main()
