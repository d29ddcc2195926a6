"""The data folder: what lies in it, and the lock that says whose it is."""

import fcntl
import os
from pathlib import Path
from typing import TextIO

import platformdirs

from reference_manager.embedded.account import Account
from reference_manager.embedded.errors import EmbeddedPostgresError


def default_data_dir() -> Path:
    """Where the data lies unless somebody says otherwise.

    A normal user's own data folder, such as ~/.local/share/jobnik; for root /var/lib/jobnik, because the server may
    not run as root and could not pass /root.
    """
    return Path("/var/lib/jobnik") if os.geteuid() == 0 else platformdirs.user_data_path("jobnik")


class DataFolder:
    """A folder with the cluster, its password, the server's log and the lock.

    Args:
        root: Made when it is missing, open to nobody else. May hold other things as well.
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
        """Make the folder unless it is there.

        Raises:
            EmbeddedPostgresError: It may not be made here.
        """
        if self.root.is_dir():
            return
        try:
            self.root.mkdir(parents=True)
            # Root's server runs under another account, which has to pass this folder but not to list it.
            self.root.chmod(0o711 if os.geteuid() == 0 else 0o700)
        except OSError as error:
            raise EmbeddedPostgresError(f"{self.root} cannot be made: {error}. Choose another data folder.") from error

    def lock(self) -> None:
        """Become the folder's owner until `unlock`, or until this process ends in whatever way.

        Raises:
            EmbeddedPostgresError: Somebody else is the owner, or the folder is not ours to write in.
        """
        try:
            lock = self._lock_file.open("a+")
        except OSError as error:
            raise EmbeddedPostgresError(
                f"{self.root} cannot be written in: {error}. Choose another data folder."
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().strip()
            lock.close()
            raise EmbeddedPostgresError(
                f"{self.root} is in use by another manager (process {owner}). Stop that one, choose another data "
                "folder, or give both managers the URL of one database."
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        self._lock = lock

    def unlock(self) -> None:
        """Give the folder up; nothing happens to one that was not locked."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def check_open_to(self, account: Account) -> None:
        """Make sure that the server, which runs as `account`, can get here.

        Raises:
            EmbeddedPostgresError: A folder on the way is closed to it.
        """
        closed = account.closed_folder(self.root)
        if closed is not None:
            raise EmbeddedPostgresError(
                f"PostgreSQL does not run as root, and {account.name}, who runs it, may not pass {closed} to reach "
                f"{self.root}. Choose a data folder elsewhere, such as {default_data_dir()}, or open that one "
                f"(chmod o+x {closed})."
            )

    def new_log(self) -> TextIO:
        """An empty log file for the next server; the one before it is kept under another name."""
        if self.log_file.exists():
            self.log_file.replace(self.previous_log_file)
        return self.log_file.open("w")
