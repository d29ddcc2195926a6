"""Find promtool: the user's own, else Debian's or Ubuntu's, in .tools/bin. `python -m tools.promtool` prints which."""

import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from tools.brought import BIN, keep


def find_promtool() -> Path:
    """Return a promtool that runs, fetching one where PATH has none; nothing is installed, and nobody has to be root.

    Raises:
        RuntimeError: there is none, and no apt-get to fetch it with; says what to install.
    """
    if own := shutil.which("promtool"):
        return Path(own)
    brought = BIN / "promtool"
    if not brought.exists():
        if shutil.which("apt-get") is None:
            where = "macOS: `brew install prometheus`, else https://prometheus.io/download"
            raise RuntimeError(f"promtool is not on PATH: install Prometheus ({where})")
        _bring(brought)
    return brought


def _bring(target: Path) -> None:
    with TemporaryDirectory() as folder:
        # Lists of its own: those of the system may be missing, or somebody else's to update.
        for name in ("lists", "cache/archives"):
            Path(folder, name, "partial").mkdir(parents=True)
        apt = ["apt-get", "-qq", "-o", f"Dir::State::Lists={folder}/lists", "-o", f"Dir::Cache={folder}/cache"]
        for command in ("update", "download prometheus"):
            subprocess.run([*apt, *command.split()], cwd=folder, check=True, capture_output=True)
        (package,) = Path(folder).glob("prometheus_*.deb")
        subprocess.run(["dpkg-deb", "--extract", package, folder], check=True)
        keep(Path(folder, "usr", "bin", "promtool"), target)


if __name__ == "__main__":
    print(find_promtool())
