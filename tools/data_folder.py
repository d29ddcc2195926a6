"""A temporary data folder for PostgreSQL."""

import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - the system's file system in memory, with a random folder name
_NEEDED: Final = 8_000_000_000
"""Bytes that must be free there: the databases of a suite take about 3 GB."""


@contextmanager
def temporary_data_folder(*, in_memory: bool = False) -> Generator[Path]:
    """Yield the path of a folder that does not exist yet, and remove it at the end.

    Every user can access its parent: when the caller is root, PostgreSQL runs as another user.

    Args:
        in_memory: Whether the folder should be in memory, where a database is created and removed in half the time. If
            that is not possible, the folder is on disk.
    """
    parent = Path(tempfile.mkdtemp(prefix="jobnik-", dir=_memory() if in_memory else None))
    parent.chmod(0o755)
    try:
        yield parent / "data"
    finally:
        shutil.rmtree(parent)


def _memory() -> Path | None:
    with suppress(OSError):
        if shutil.disk_usage(_MEMORY).free >= _NEEDED:
            return _MEMORY
    return None
