"""Where the programs are that the demo runs."""

import os
import shutil
import sys
from pathlib import Path

from tools.demo.processes import DemoError


def beside_python(name: str) -> str:
    """Return a program of the environment that the demo runs in, such as copier."""
    return str(Path(sys.executable).with_name(name))


def uv() -> str:
    """Return uv, also where it is not on PATH because make brought it.

    Raises:
        DemoError: There is none.
    """
    # `uv run` names itself in UV.
    found = os.environ.get("UV") or shutil.which("uv")
    if found is None:
        raise DemoError("uv is missing: start the demo with `make demo`, which brings it.")
    return found


def check_programs() -> None:
    """Make sure that what the demo does not bring itself is there.

    Raises:
        DemoError: Something is missing.
    """
    uv()
    if shutil.which("git") is None:
        raise DemoError("git is missing: install it, then try again.")
