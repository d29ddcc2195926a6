"""The project that is looked at, and the programs that help: uv, and what it brings."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jobnik_devtools.doctor.findings import CannotCheckError

_PATIENCE: Final = 120.0
"""Seconds for a program: one that uv has to fetch first takes long on a slow line."""
_MISLEADING: Final = {"UV_FROZEN", "UV_LOCKED", "VIRTUAL_ENV"}
"""Variables of the uv that runs us, which the uv that we run shall not heed."""

_CAUSE: Final = re.compile(r"\b(?:[Ee]rror|fatal|cause|[A-Z]\w*Error): (.+)")


@dataclass(frozen=True)
class Project:
    """A generated worker."""

    root: Path
    package: str

    def uv(self, *arguments: str | Path, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
        """Run uv, in the project unless `cwd` says otherwise.

        Raises:
            CannotCheckError: there is no uv, or it takes too long.
        """
        return self.run(find_uv(), *arguments, cwd=cwd)

    def run(self, *command: str | Path, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
        """Run a program, in the project unless `cwd` says otherwise; nobody is there to answer its questions.

        Raises:
            CannotCheckError: it takes too long.
        """
        inherited = {name: value for name, value in os.environ.items() if name not in _MISLEADING}
        try:
            return subprocess.run(  # noqa: S603 the checks name the programs
                [str(part) for part in command],
                cwd=cwd or self.root,
                env=inherited | {"GIT_TERMINAL_PROMPT": "0", "NO_COLOR": "1"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=_PATIENCE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise CannotCheckError(f"{Path(command[0]).name} took more than {_PATIENCE:.0f} s") from None


def find_uv() -> str:
    """Return the path of uv.

    Raises:
        CannotCheckError: there is none.
    """
    found = os.environ.get("UV") or shutil.which("uv")
    if found is None:
        raise CannotCheckError("uv is not on PATH")
    return found


def complaint(result: "subprocess.CompletedProcess[str]") -> str:
    """Return the last cause that a failed program named: of `fatal: no such host`, `no such host`."""
    lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
    causes = [cause[1] for cause in map(_CAUSE.search, lines) if cause]
    return (causes or lines or [f"it ended with {result.returncode}"])[-1]
