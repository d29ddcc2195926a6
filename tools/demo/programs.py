"""Find the programs that the demo runs."""

import shutil
import sys
from pathlib import Path

from tools.external import MissingProgramError, uv


def beside_python(name: str) -> str:
    """Return the path of a program in the environment that the demo runs in, such as copier."""
    return str(Path(sys.executable).with_name(name))


def check_programs() -> None:
    """Check that uv and git are installed.

    Raises:
        MissingProgramError: one of them is not.
    """
    uv()
    if shutil.which("git") is None:
        raise MissingProgramError("git is missing: install it, then try again.")
