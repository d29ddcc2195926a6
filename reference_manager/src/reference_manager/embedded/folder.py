"""The data folder: its files, and the lock of its owner."""

import fcntl
import os
from pathlib import Path
from typing import TextIO

import platformdirs

from reference_manager.embedded.account import Account
from reference_manager.embedded.errors import EmbeddedPostgresError


def default_data_dir() -> Path:
    """Return the default data folder.

    For a normal user, this is a folder such as ~/.local/share/jobnik. For root, it is /var/lib/jobnik, because the
    server does not run as root and cannot enter /root.
    """
    return Path("/var/lib/jobnik") if os.geteuid() == 0 else platformdirs.user_data_path("jobnik")


class DataFolder:
    """A folder with the cluster, its password, the log of the server, and the lock.

    Args:
        root: The path of the folder. It may hold other files.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().resolve()
        self.pgdata = self.root / "postgres"
        self.password_file = self.root / "postgres.password"
        self.log_file = self.root / "postgres.log"
        self.previous_log_file = self.root / "postgres.previous.log"
        self._lock_file = self.root / "manager.lock"
        self._lock: TextIO | None = None

    def create(self) -> None:
        """Create the folder, closed to other users, unless it exists.

        Raises:
            EmbeddedPostgresError: The folder cannot be created here.
        """
        try:
            if self.root.is_dir():
                return
            self.root.mkdir(parents=True)
            # For root, the server runs under another account, which has to enter this folder but need not list it.
            self.root.chmod(0o711 if os.geteuid() == 0 else 0o700)
        except OSError as error:
            raise EmbeddedPostgresError(
                f"{self.root} cannot be created: {error}. Choose another data folder."
            ) from error

    def lock(self) -> None:
        """Own the folder until `unlock`, or until this process ends for any reason.

        Raises:
            EmbeddedPostgresError: Another manager owns the folder, or this process may not write to it.
        """
        try:
            lock = self._lock_file.open("a+")
        except OSError as error:
            raise EmbeddedPostgresError(
                f"{self.root} cannot be written to: {error}. Choose another data folder."
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().strip()
            lock.close()
            raise EmbeddedPostgresError(
                f"{self.root} is in use by another manager (process {owner}). Stop that one, choose another data "
                "folder, or set the URL of one database for both managers."
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        self._lock = lock

    def is_locked(self) -> bool:
        """Return whether a process owns the folder."""
        try:
            with self._lock_file.open("r") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def unlock(self) -> None:
        """Release the folder. Releasing an unlocked folder does nothing."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def check_reachable_by(self, account: Account) -> None:
        """Check that the server, which runs as `account`, can reach the folder.

        Raises:
            EmbeddedPostgresError: The account cannot enter this folder or one of its parents.
        """
        closed = account.inaccessible_folder(self.root)
        if closed is not None:
            raise EmbeddedPostgresError(
                f"PostgreSQL cannot run as root, and its user {account.name} cannot enter {closed} to reach "
                f"{self.root}. Choose another data folder, such as {default_data_dir()}, or open that folder "
                f"(chmod o+x {closed})."
            )

    def new_log(self) -> TextIO:
        """Open an empty log file for the next server. The previous log file is renamed."""
        if self.log_file.exists():
            self.log_file.replace(self.previous_log_file)
        return self.log_file.open("w")
