"""The environment for programs of a rendered project, without the variables of the tests' own environment."""

import os
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
