"""The cluster on disk: created atomically, and checked before each start."""

import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from reference_manager.embedded.account import Account
from reference_manager.embedded.binaries import major_version
from reference_manager.embedded.errors import EmbeddedPostgresError
from reference_manager.embedded.folder import DataFolder
from reference_manager.embedded.nameless import creating_programs
from reference_manager.embedded.process import run_program

ROLE = "jobnik"
DATABASE = "jobnik"
_STAGING_PREFIX = "postgres.new-"


def ensure_cluster(folder: DataFolder, binaries: Path, account: Account | None, *, durable: bool) -> None:
    """Create the cluster, with the role and the database `jobnik`, unless it exists.

    Args:
        folder: The data folder.
        binaries: The folder of `postgres` and `initdb`.
        account: The account that runs the server; None for the current account.
        durable: Whether the cluster must survive a power failure.

    Raises:
        EmbeddedPostgresError: These binaries cannot open the existing cluster, or creating one failed.
    """
    _remove_incomplete(folder)
    if folder.pgdata.exists():
        _check_version(folder.pgdata, binaries)
    else:
        _create(folder, binaries, account, durable=durable)


def read_password(folder: DataFolder) -> str:
    """Return the password of the role `jobnik`.

    Raises:
        EmbeddedPostgresError: The password file is missing.
    """
    try:
        return folder.password_file.read_text().strip()
    except FileNotFoundError:
        raise EmbeddedPostgresError(
            f"{folder.password_file} is missing. Without the password, the data in {folder.pgdata} cannot be opened. "
            "Restore the file, or move the data folder away to start with an empty one."
        ) from None


def _create(folder: DataFolder, binaries: Path, account: Account | None, *, durable: bool) -> None:
    staging = Path(tempfile.mkdtemp(prefix=_STAGING_PREFIX, dir=folder.root))
    try:
        _write_password(folder.password_file, account)
        if account:
            account.take_ownership(staging)
        with _locked(staging) as lock:
            run = partial(run_program, account=account, inherits=[lock])
            with creating_programs(binaries, folder.root, _STAGING_PREFIX) as programs:
                _initdb(run, staging, folder.password_file, programs, durable=durable)
                _create_database(run, staging, programs, durable=durable)
        staging.rename(folder.pgdata)
    except BaseException:
        _discard(staging)
        raise
    _sync_folder(folder.root)


def _initdb(run: Callable[..., None], target: Path, password_file: Path, binaries: Path, *, durable: bool) -> None:
    command = [
        str(binaries / "initdb"),
        f"--pgdata={target}",
        f"--username={ROLE}",
        f"--pwfile={password_file}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale=C",
        "--data-checksums",
        "--no-instructions",
    ]
    run(command if durable else [*command, "--no-sync"])


def _create_database(run: Callable[..., None], pgdata: Path, binaries: Path, *, durable: bool) -> None:
    # In single-user mode, PostgreSQL needs neither a port nor a driver, and the cluster is complete before the rename.
    fsync = "on" if durable else "off"
    command = [str(binaries / "postgres"), "--single", "-D", str(pgdata), "-c", f"fsync={fsync}", "postgres"]
    run(command, stdin=f"CREATE DATABASE {DATABASE}\n")


def _write_password(path: Path, account: Account | None) -> None:
    # A file from an interrupted attempt does not belong to any cluster.
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"{secrets.token_urlsafe(32)}\n")
        file.flush()
        os.fsync(file.fileno())
    if account:
        account.take_ownership(path)


def _check_version(pgdata: Path, binaries: Path) -> None:
    try:
        cluster_version = int((pgdata / "PG_VERSION").read_text())
    except (OSError, ValueError) as error:
        raise EmbeddedPostgresError(
            f"{pgdata} is not a PostgreSQL data folder: {error}. Move it away, or choose another data folder."
        ) from error
    version = major_version(binaries)
    if cluster_version != version:
        raise EmbeddedPostgresError(
            f"{pgdata} was created by PostgreSQL {cluster_version}, but {binaries} has PostgreSQL {version}. Use the "
            f"binaries of {cluster_version}, move the data with pg_dump or pg_upgrade, or choose another data folder."
        )


def _remove_incomplete(folder: DataFolder) -> None:
    for staging in folder.root.glob(f"{_STAGING_PREFIX}*"):
        _discard(staging)


def _discard(staging: Path) -> None:
    """Remove the folder of an interrupted attempt once initdb and its child, which outlive a manager, have ended."""
    with suppress(OSError), _locked(staging):
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def _locked(staging: Path) -> Generator[int]:
    """Hold the lock of a folder. Programs that inherit the file descriptor also hold it until they end."""
    descriptor = os.open(staging, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems cannot lock folders; there, this is best effort
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
