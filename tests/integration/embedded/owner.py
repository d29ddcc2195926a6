"""A stand-in for a manager: starts an embedded PostgreSQL, prints its URL, and waits until stdin ends or it is killed.

Usage: owner.py DATA_DIR [USER]. With USER, a name or an id, the process becomes that user after all imports, because
Python itself may be in a folder that is closed to USER.
"""

import os
import pwd
import sys
from pathlib import Path

from reference_manager.embedded import EmbeddedPostgres


def become(user: str) -> None:
    """Change permanently from root to a normal user."""
    uid, gid = (int(user), 0) if user.isdecimal() else pwd.getpwnam(user)[2:4]
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        become(sys.argv[2])
    with EmbeddedPostgres(Path(sys.argv[1])) as server:
        print(server.url, flush=True)  # noqa: T201 - its answer to the test
        sys.stdin.read()
