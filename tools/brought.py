"""What tests need and PyPI does not install as it is: fetched once, kept in .tools."""

import os
import shutil
from pathlib import Path

TOOLS = Path(__file__).resolve().parent.parent / ".tools"
BIN = TOOLS / "bin"


def uv() -> str:
    """Return the path of uv.

    Raises:
        RuntimeError: there is none; says what to install.
    """
    found = os.environ.get("UV") or shutil.which("uv")
    if found is None:
        raise RuntimeError("uv is not on PATH: install it (https://docs.astral.sh/uv)")
    return found


def keep(fetched: Path, target: Path) -> None:
    """Put a file where it is kept; renamed into place at the end, so that nobody ever uses a half-written one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(f".{os.getpid()}")
    shutil.copy2(fetched, partial)
    partial.replace(target)
