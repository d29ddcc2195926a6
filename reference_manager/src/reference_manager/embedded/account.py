"""The account of the operating system that the server runs under. PostgreSQL refuses to run as root."""

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from reference_manager.embedded.errors import EmbeddedPostgresError

_CANDIDATES_FOR_ROOT = ("postgres", "nobody")


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody other than root: its name, user id and group id."""

    name: str
    uid: int
    gid: int

    def closed_folder(self, path: Path) -> Path | None:
        """The outermost folder on the way to `path`, itself included, that this account may not pass; None: all open.

        Looks at the mode bits alone. Access lists that say otherwise are not seen.
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

    def give(self, path: Path) -> None:
        """Make this account the owner of `path`."""
        os.chown(path, self.uid, self.gid)


def server_account(pgdata: Path) -> Account | None:
    """Whom the server of this folder runs as; None: whoever we are, which is right unless we are root.

    As root it is the folder's owner, so that data which a normal user made stays theirs.

    Raises:
        EmbeddedPostgresError: The folder belongs to somebody else, or root finds no account to use.
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
        f"PostgreSQL does not run as root, and none of the users {', '.join(_CANDIDATES_FOR_ROOT)} exists. "
        "Start the manager as a normal user, or give it the URL of a database."
    )
