"""What the programs of a rendered project run in: nothing of the environment that these tests run in."""

import os
from pathlib import Path
from typing import Final

INSTALLATION: Final = 180
"""Seconds: building SDK and manager and installing them with all they need takes long where caches are cold."""

# They would make uv act on this environment instead of on the rendered project's, and its make talk as part of the one
# that runs these tests.
_OURS: Final = {"VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT", "UV_FROZEN", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"}


def of_a_newcomer() -> dict[str, str]:
    """Give the environment variables of somebody who has a shell of their own."""
    theirs = {name: value for name, value in os.environ.items() if name not in _OURS}
    # The uv that runs these tests may be one that the Makefile brought, which is not on PATH.
    if uv := os.environ.get("UV"):
        theirs["PATH"] = f"{Path(uv).parent}{os.pathsep}{theirs['PATH']}"
    return theirs
