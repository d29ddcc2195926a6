"""Find promtool on PATH, or download Debian's or Ubuntu's to .tools/bin. `python -m tools.promtool` prints its path."""

import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from tools.downloads import BIN, store


def find_promtool() -> Path:
    """Return the path of promtool, downloading it if it is not on PATH. This installs nothing and does not need root.

    Raises:
        RuntimeError: promtool and apt-get were not found; the message says what to install.
    """
    if own := shutil.which("promtool"):
        return Path(own)
    downloaded = BIN / "promtool"
    if not downloaded.exists():
        if shutil.which("apt-get") is None:
            where = "macOS: `brew install prometheus`, else https://prometheus.io/download"
            raise RuntimeError(f"promtool is not on PATH: install Prometheus ({where})")
        _download(downloaded)
    return downloaded


def _download(target: Path) -> None:
    with TemporaryDirectory() as folder:
        # Separate package lists: the system's may be missing, or this user may not be allowed to update them.
        for name in ("lists", "cache/archives"):
            Path(folder, name, "partial").mkdir(parents=True)
        apt = ["apt-get", "-qq", "-o", f"Dir::State::Lists={folder}/lists", "-o", f"Dir::Cache={folder}/cache"]
        for command in ("update", "download prometheus"):
            subprocess.run([*apt, *command.split()], cwd=folder, check=True, capture_output=True)
        (package,) = Path(folder).glob("prometheus_*.deb")
        subprocess.run(["dpkg-deb", "--extract", package, folder], check=True)
        store(Path(folder, "usr", "bin", "promtool"), target)


if __name__ == "__main__":
    print(find_promtool())
