"""Lets PostgreSQL create a cluster under a user id without an account, as containers assign it.

`initdb` and the single-user mode of `postgres` ask the system for the name of the current user, and end if there is
none, although nothing depends on that name: the manager names the role. In copies of both programs, the call of
`getpwuid`, which finds the account of a user id, is replaced by one of `getpwent`, which returns the first account of
the system. The copies create the cluster and are then removed. The server itself does not ask for a name.
"""

import os
import pwd
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from reference_manager.embedded.errors import EmbeddedPostgresError

_PROGRAMS: Final = ("initdb", "postgres")
_BY_ID: Final = b"\0getpwuid\0"
_FIRST: Final = b"\0getpwent\0"
"""Names in the programs' tables of imported functions. Both functions return a pointer to an account."""


@contextmanager
def creating_programs(binaries: Path, folder: Path, prefix: str) -> Generator[Path]:
    """Yield the folder of an `initdb` and a `postgres` that work under the id of the current user.

    Args:
        binaries: The folder of the original programs, which is yielded if the user id has an account.
        folder: Where to put the copies.
        prefix: How the name of the folder of the copies begins.

    Raises:
        EmbeddedPostgresError: The programs cannot be changed.
    """
    uid = os.geteuid()
    if _has_name(uid):
        yield binaries
        return
    with tempfile.TemporaryDirectory(prefix=prefix, dir=folder) as copies:
        yield _copy(binaries, Path(copies), uid)


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _copy(binaries: Path, target: Path, uid: int) -> Path:
    # The programs find their files and libraries relative to their own folder.
    installation = binaries.parent
    copy = target / installation.parent.name / installation.name / binaries.name
    copy.mkdir(parents=True)
    for part in installation.iterdir():
        if part.name != binaries.name:
            (copy.parent / part.name).symlink_to(part)
    libraries = installation.parent.with_name(f"{installation.parent.name}.libs")
    if libraries.exists():
        (target / libraries.name).symlink_to(libraries)
    for name in _PROGRAMS:
        program = (binaries / name).read_bytes()
        if program.count(_BY_ID) != 1:
            raise EmbeddedPostgresError(
                f"The user id {uid} has no account, which {binaries / name} requires. Start the manager as a user with "
                "an entry in /etc/passwd, or set the URL of a database."
            )
        (copy / name).write_bytes(program.replace(_BY_ID, _FIRST))
        (copy / name).chmod(0o700)
    return copy
