"""Find promtool on PATH, or download Debian's or Ubuntu's to .tools/bin.

`python -m tools.promtool` prints its path.
"""

import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from jobnik_devtools.environments import clean_environment

from tools.external import BIN, MissingProgramError, keep


def find_promtool() -> Path:
    """Return the path of promtool. If it is not on PATH, fetch it, which installs nothing and does not need root.

    Raises:
        MissingProgramError: promtool is not installed, and there is no apt-get to fetch it with.
    """
    if own := shutil.which("promtool"):
        return Path(own)
    fetched = BIN / "promtool"
    if not fetched.exists():
        if shutil.which("apt-get") is None:
            where = "macOS: `brew install prometheus`, else https://prometheus.io/download"
            raise MissingProgramError(f"promtool is not on PATH: install Prometheus ({where})")
        _fetch(fetched)
    return fetched


def _fetch(target: Path) -> None:
    with TemporaryDirectory() as folder:
        # Separate package lists: those of the system may be missing, and this process may not update them.
        for name in ("lists", "cache/archives"):
            Path(folder, name, "partial").mkdir(parents=True)
        apt = ["apt-get", "-qq", "-o", f"Dir::State::Lists={folder}/lists", "-o", f"Dir::Cache={folder}/cache"]
        for command in ("update", "download prometheus"):
            subprocess.run(
                [*apt, *command.split()], cwd=folder, env=clean_environment(), check=True, capture_output=True
            )
        (package,) = Path(folder).glob("prometheus_*.deb")
        subprocess.run(["dpkg-deb", "--extract", package, folder], env=clean_environment(), check=True)
        keep(Path(folder, "usr", "bin", "promtool"), target)


if __name__ == "__main__":
    print(find_promtool())
