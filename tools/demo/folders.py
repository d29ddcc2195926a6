"""What the demo leaves in ./demo, and what it starts with."""

import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools.demo.processes import DemoError

OWN_PICTURES = Path(__file__).parent / "pictures"

_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
# An installed environment and its lock stay from one run to the next: they cost the most time, and uv keeps them right.
_KEPT_OF_WORKER = {".venv", "uv.lock"}


@dataclass(frozen=True)
class Folders:
    """Where everything lies, below one folder."""

    root: Path

    @property
    def source(self) -> Path:
        """This repository as it is now, uncommitted changes included, as a commit that Copier and uv can read."""
        return self.root / "source"

    @property
    def worker(self) -> Path:
        """The rendered worker, with its own environment."""
        return self.root / "worker"

    @property
    def thumbnails(self) -> Path:
        """What the rendered worker makes."""
        return self.root / "thumbnails"

    @property
    def contact_sheet(self) -> Path:
        """What the demo's own worker makes of the thumbnails."""
        return self.root / "contact-sheet.jpg"

    def log(self, name: str) -> Path:
        """The log of one of the programs."""
        return self.root / f"{name}.log"

    def prepare(self) -> None:
        """Remove what an earlier run left, except its caches."""
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
    """A folder for the manager's data, gone with the demo.

    It lies outside ./demo, so that the demo runs as root in a clone below /root too: PostgreSQL refuses to run as root,
    and nobody else may pass /root.
    """
    with tempfile.TemporaryDirectory(prefix="jobnik-demo-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        yield Path(folder) / "data"


def find_pictures(folder: Path) -> list[Path]:
    """The pictures that lie in a folder itself, by name.

    Raises:
        DemoError: There is no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise DemoError(f"{folder} is not a folder.")
    found = sorted(file for file in folder.resolve().iterdir() if file.suffix.lower() in _SUFFIXES and file.is_file())
    if not found:
        raise DemoError(f"There is no picture in {folder}: none of its files ends in {', '.join(sorted(_SUFFIXES))}.")
    return found
