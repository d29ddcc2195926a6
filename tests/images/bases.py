"""Stand-ins for the Python base images, built from Debian packages without a registry.

Like the real images, they contain Debian 13 with Python 3.13 and pip; the full image also contains git.
"""

import subprocess
from pathlib import Path

from tests.images.buildah import Buildah

SLIM = "docker.io/library/python:3.13-slim"
FULL = "docker.io/library/python:3.13"

_PACKAGES = "ca-certificates,git,python3,python3-pip"
_UNREAD = ("/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/man/*")
_AS_IN_THE_REAL_ONE = 'ln -s python3 "$1/usr/bin/python"; rm "$1"/usr/lib/python3*/EXTERNALLY-MANAGED'


def make_bases(buildah: Buildah, folder: Path) -> None:
    """Build the base images that are missing, with `folder` for temporary files."""
    if not buildah.has(FULL):
        buildah.make(FULL, _install_debian)
    if not buildah.has(SLIM):
        # Packages are quicker removed than installed, which takes an update of the lists of packages.
        (folder / "Dockerfile").write_text(f"FROM {FULL}\nRUN apt-get autoremove --purge --yes git\n")
        buildah.build(SLIM, folder)


def _install_debian(root: Path) -> None:
    options = [f"--include={_PACKAGES}", *(f"--dpkgopt=path-exclude={unread}" for unread in _UNREAD)]
    hook = f"--customize-hook={_AS_IN_THE_REAL_ONE}"
    subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", *options, hook, "trixie", root], check=True)
