"""Programs and schemas that tests need and that PyPI does not install directly: downloaded once, stored in .tools."""

import os
import shutil
from pathlib import Path

TOOLS = Path(__file__).resolve().parent.parent / ".tools"
BIN = TOOLS / "bin"


def uv() -> str:
    """Return the path of uv.

    Raises:
        RuntimeError: uv was not found; the message says what to install.
    """
    found = os.environ.get("UV") or shutil.which("uv")
    if found is None:
        raise RuntimeError("uv is not on PATH: install it (https://docs.astral.sh/uv)")
    return found


def store(fetched: Path, target: Path) -> None:
    """Copy a file to `target` by an atomic rename, so that no other process sees a half-written file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(f".{os.getpid()}")
    shutil.copy2(fetched, partial)
    partial.replace(target)
