"""A place for the data of a PostgreSQL that somebody starts for a while."""

import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def temporary_data_folder() -> Generator[Path]:
    """A folder to be made, removed at the end.

    Every user may pass its parents: as root, PostgreSQL runs as another user, who must be able to get in.
    """
    parent = Path(tempfile.mkdtemp(prefix="jobnik-"))
    parent.chmod(0o755)
    try:
        yield parent / "data"
    finally:
        shutil.rmtree(parent)
