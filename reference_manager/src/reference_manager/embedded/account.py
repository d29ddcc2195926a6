"""The operating system account that the server runs under. PostgreSQL refuses to run as root."""

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from reference_manager.embedded.errors import EmbeddedPostgresError

_CANDIDATES_FOR_ROOT = ("postgres", "nobody")


@dataclass(frozen=True, slots=True)
class Account:
    """An account other than root."""

    name: str
    uid: int
    gid: int

    def inaccessible_folder(self, path: Path) -> Path | None:
        """Return the outermost folder of the path, including the path itself, that this account cannot enter, or None.

        Only mode bits count: access control lists are ignored.
        """
        for folder in reversed([path, *path.parents]):
            state = folder.stat()
            if state.st_uid == self.uid:
                needed = stat.S_IXUSR
            elif state.st_gid == self.gid:
                needed = stat.S_IXGRP
            else:
                needed = stat.S_IXOTH
            if not state.st_mode & needed:
                return folder
        return None

    def take_ownership(self, path: Path) -> None:
        """Make this account the owner of `path`."""
        os.chown(path, self.uid, self.gid)


def server_account(pgdata: Path) -> Account | None:
    """Return the account that the server of this folder runs under; None for the current account.

    Only root needs another account. For an existing folder, that is its owner, so that a user's data stays theirs.

    Raises:
        EmbeddedPostgresError: The folder belongs to another user, or there is no account that root can use.
    """
    owner = pgdata.stat().st_uid if pgdata.exists() else None
    if os.geteuid() != 0:
        if owner not in {None, os.geteuid()}:
            raise EmbeddedPostgresError(
                f"{pgdata} belongs to the user with id {owner}. Start the manager as that user or as root, "
                "or choose another data folder."
            )
        return None
    return _owner_of(pgdata) if owner else _account_for_root()


def _owner_of(path: Path) -> Account:
    state = path.stat()
    try:
        name = pwd.getpwuid(state.st_uid).pw_name
    except KeyError:
        name = f"user {state.st_uid}"
    return Account(name, state.st_uid, state.st_gid)


def _account_for_root() -> Account:
    for name in _CANDIDATES_FOR_ROOT:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise EmbeddedPostgresError(
        f"PostgreSQL cannot run as root, and none of the users {', '.join(_CANDIDATES_FOR_ROOT)} exists. "
        "Start the manager as a normal user, or set the URL of a database."
    )
