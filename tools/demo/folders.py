"""The files and folders of the demo."""

import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools.demo.processes import DemoError

OWN_PICTURES = Path(__file__).parent / "pictures"

_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
# Kept between runs: installing takes the most time, and uv updates both.
_KEPT_OF_WORKER = {".venv", "uv.lock"}


@dataclass(frozen=True)
class Folders:
    """The paths of everything that the demo writes, in one folder."""

    root: Path

    @property
    def source(self) -> Path:
        """A snapshot of this repository, including uncommitted changes, as a commit that Copier and uv can read."""
        return self.root / "source"

    @property
    def worker(self) -> Path:
        """The rendered worker and its environment."""
        return self.root / "worker"

    @property
    def thumbnails(self) -> Path:
        """The thumbnails that the rendered worker makes."""
        return self.root / "thumbnails"

    @property
    def contact_sheet(self) -> Path:
        """The contact sheet that the demo's own worker makes of the thumbnails."""
        return self.root / "contact-sheet.jpg"

    def log(self, name: str) -> Path:
        """The log file of a program."""
        return self.root / f"{name}.log"

    def prepare(self) -> None:
        """Remove the results of an earlier run, except its caches."""
        self.root.mkdir(parents=True, exist_ok=True)
        for log in self.root.glob("*.log"):
            log.unlink()
        self.contact_sheet.unlink(missing_ok=True)
        shutil.rmtree(self.thumbnails, ignore_errors=True)
        self.thumbnails.mkdir()
        self.worker.mkdir(exist_ok=True)
        for entry in self.worker.iterdir():
            if entry.name in _KEPT_OF_WORKER:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()


@contextmanager
def database_folder() -> Generator[Path]:
    """Yield a folder for the manager's data, and remove it at the end.

    The folder is outside ./demo, so that root can run the demo in a clone under /root: PostgreSQL refuses to run as
    root, and other users cannot access /root.
    """
    with tempfile.TemporaryDirectory(prefix="jobnik-demo-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        yield Path(folder) / "data"


def find_pictures(folder: Path) -> list[Path]:
    """Return the pictures in a folder, without subfolders, sorted by name.

    Raises:
        DemoError: The folder does not exist or contains no pictures.
    """
    if not folder.is_dir():
        raise DemoError(f"{folder} is not a folder.")
    found = sorted(file for file in folder.resolve().iterdir() if file.suffix.lower() in _SUFFIXES and file.is_file())
    if not found:
        raise DemoError(f"{folder} contains no pictures. Supported file types: {', '.join(sorted(_SUFFIXES))}.")
    return found
