"""A temporary data folder for PostgreSQL."""

import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def temporary_data_folder() -> Generator[Path]:
    """Yield the path of a folder that does not exist yet, and remove it at the end.

    Every user can access its parent: when the caller is root, PostgreSQL runs as another user.
    """
    parent = Path(tempfile.mkdtemp(prefix="jobnik-"))
    parent.chmod(0o755)
    try:
        yield parent / "data"
    finally:
        shutil.rmtree(parent)
