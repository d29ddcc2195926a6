"""The environment for programs of a rendered project, without the variables of the tests' own environment."""

import os
import shutil
import sysconfig
from pathlib import Path
from typing import Final

INSTALL_TIMEOUT: Final = 180
"""Seconds. With cold caches, building and installing the SDK, the manager and their dependencies takes long."""

# These variables would make uv use this environment instead of the rendered project's, and would make its make print as
# a part of the make that runs these tests.
_OURS: Final = {"VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT", "UV_FROZEN", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"}


def clean_environment() -> dict[str, str]:
    """Return the environment variables of a new shell."""
    environment = {name: value for name, value in os.environ.items() if name not in _OURS}
    # The uv that runs these tests may be one that the Makefile installed, which is not on PATH.
    if uv := os.environ.get("UV"):
        environment["PATH"] = f"{Path(uv).parent}{os.pathsep}{environment['PATH']}"
    return environment


def share_bytecode(environment: Path) -> None:
    """Copy the bytecode of this environment's packages to another environment with the same Python.

    Compiling them takes several times longer than the tests of a new project. Python compiles a module whose source has
    another size or another time, as that of another version has.
    """
    own = Path(sysconfig.get_path("purelib"))
    packages = environment / own.relative_to(sysconfig.get_path("data"))
    for package in packages.iterdir():
        for compiled in (own / package.name).rglob("__pycache__"):
            shutil.copytree(compiled, packages / compiled.relative_to(own), dirs_exist_ok=True)
