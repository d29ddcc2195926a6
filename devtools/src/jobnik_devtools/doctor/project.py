"""The project that is checked, and the programs that the checks run: uv, and what uv fetches."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jobnik_devtools.doctor.findings import CannotCheckError
from jobnik_devtools.environments import clean_environment

_TIMEOUT: Final = 120.0
"""Seconds for a program: over a slow connection, uv needs long to fetch one."""
_CAUSE: Final = re.compile(r"\b(?:[Ee]rror|fatal|cause|[A-Z]\w*Error): (.+)")


@dataclass(frozen=True)
class Project:
    """A rendered worker: its folder, and its package."""

    root: Path
    package: str

    def uv(self, *arguments: str | Path, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
        """Run uv in the folder of the project, or in `cwd`.

        Raises:
            CannotCheckError: uv is not installed, or takes longer than 120 s.
        """
        return self.run(find_uv(), *arguments, cwd=cwd)

    def run(self, *command: str | Path, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
        """Run a program in the folder of the project, or in `cwd`, without a terminal and without prompts.

        Raises:
            CannotCheckError: the program takes longer than 120 s.
        """
        try:
            return subprocess.run(  # noqa: S603 the checks name the programs
                [str(part) for part in command],
                cwd=cwd or self.root,
                env=clean_environment() | {"GIT_TERMINAL_PROMPT": "0", "NO_COLOR": "1"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise CannotCheckError(f"{Path(command[0]).name} took more than {_TIMEOUT:.0f} s") from None

    def show(self, *command: str) -> int:
        """Run a program in the folder of the project, show its output as it comes, and return its exit code."""
        return subprocess.run(command, cwd=self.root, env=clean_environment(), check=False).returncode  # noqa: S603 as above


def find_uv() -> str:
    """Return the path of uv.

    Raises:
        CannotCheckError: uv is not installed.
    """
    found = os.environ.get("UV") or shutil.which("uv")
    if found is None:
        raise CannotCheckError("uv is not on PATH", "install it: https://docs.astral.sh/uv")
    return found


def failure_cause(result: "subprocess.CompletedProcess[str]") -> str:
    """Return the last cause that a failed program named: for `fatal: no such host`, `no such host`."""
    lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
    causes = [cause[1] for cause in map(_CAUSE.search, lines) if cause]
    return (causes or lines or [f"exit code {result.returncode}"])[-1]
