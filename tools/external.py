"""Programs and files that the tests and tools need and no dependency installs. What is fetched is kept in .tools."""

import os
import shutil
from pathlib import Path

TOOLS = Path(__file__).resolve().parent.parent / ".tools"
BIN = TOOLS / "bin"


class MissingProgramError(RuntimeError):
    """A program is not installed; the message says how to install it."""


def uv() -> str:
    """Return the path of uv: the one that runs this process, otherwise the one on PATH.

    Raises:
        MissingProgramError: uv is not installed.
    """
    # `uv run` sets UV to its own path, which need not be on PATH.
    found = os.environ.get("UV") or shutil.which("uv")
    if found is None:
        raise MissingProgramError(
            "uv is not on PATH: run this through make, which fetches uv, or install it (https://docs.astral.sh/uv)."
        )
    return found


def keep(fetched: Path, target: Path) -> None:
    """Copy a fetched file to its place. It is renamed there at the end, so that no process sees a partial file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(f".{os.getpid()}")
    shutil.copy2(fetched, partial)
    partial.replace(target)
