"""Find the programs that the demo runs."""

import os
import shutil
import sys
from pathlib import Path

from tools.demo.processes import DemoError


def beside_python(name: str) -> str:
    """Return the path of a program in the demo's own environment, such as copier."""
    return str(Path(sys.executable).with_name(name))


def uv() -> str:
    """Return the path of uv, which may be missing from PATH if make installed it.

    Raises:
        DemoError: uv was not found.
    """
    # `uv run` sets UV to its own path.
    found = os.environ.get("UV") or shutil.which("uv")
    if found is None:
        raise DemoError("uv was not found. Start the demo with `make demo`, which installs uv.")
    return found


def check_programs() -> None:
    """Check that the programs that the demo does not install are available.

    Raises:
        DemoError: A program is missing.
    """
    uv()
    if shutil.which("git") is None:
        raise DemoError("git was not found. Install it, then try again.")
