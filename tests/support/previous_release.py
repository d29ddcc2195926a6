"""The previous release of the manager and the SDK, from the history of this repository."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from tools.manager import ManagerProcess
from tools.snapshot import ROOT

BEFORE_THE_FIRST_RELEASE = "b6a3bb1"
"""The commit that is the previous release until there is a tag."""
SOURCES = ("reference_manager/src", "sdk/src", "docs/examples")
INTERLOCK = """
from unittest.mock import Mock

CircuitBreaker, Config, State, WindowType = Mock(), Mock(), Mock(), Mock()


class CircuitOpenError(Exception):
    pass
"""
"""Stands for a package that this commit uses when a request fails, and that is no longer installed."""


class PreviousRelease:
    """The sources of the previous release, which run with the packages of this environment.

    Skips the test if the clone is too shallow to have them.

    Args:
        folder: An empty folder for the sources.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        tag = _run("git", "describe", "--tags", "--abbrev=0", "--match=v[0-9]*", "HEAD^", cwd=ROOT)
        revision = tag.stdout.decode().strip() or BEFORE_THE_FIRST_RELEASE
        archive = _run("git", "archive", revision, *SOURCES, cwd=ROOT)
        if archive.returncode:
            pytest.skip(f"this clone does not have {revision}")
        _run("tar", "-x", cwd=folder, standard_input=archive.stdout).check_returncode()
        if revision == BEFORE_THE_FIRST_RELEASE:
            (folder / "sdk/src/interlock.py").write_text(INTERLOCK)

    async def create_schema(self, url: str) -> None:
        """Create the tables as this release does. The routines are created when its manager starts."""
        versions = self._folder / "reference_manager/src/reference_manager/store/migrations/versions"
        if not versions.exists():
            return  # its manager creates the tables
        # This release uses Alembic, which is no longer installed.
        connection = await asyncpg.connect(url)
        try:
            await connection.execute("CREATE SCHEMA jobnik; SET search_path = jobnik")
            files = sorted(versions.glob("*.sql"))
            for file in files:
                await connection.execute(file.read_text(encoding="utf-8"))
            await connection.execute("CREATE TABLE migrations (version_num varchar(32) PRIMARY KEY)")
            await connection.execute("INSERT INTO migrations VALUES ($1)", files[-1].name[:4])
        finally:
            await connection.close()

    def manager(self, url: str) -> ManagerProcess:
        """Return a manager of this release on a database."""
        return ManagerProcess("--database-url", url, sources=self._folder / "reference_manager/src")

    async def run_example(self, manager_url: str) -> str:
        """Create and process a job with the SDK of this release. Return the output."""
        return await run_example(self._folder / "docs/examples", manager_url, PYTHONPATH=str(self._folder / "sdk/src"))


async def run_example(examples: Path, manager_url: str, **environment: str) -> str:
    """Run the example that creates and processes a whole job. Return its output."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, examples / "whole_job.py", manager_url),
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return output.decode()


def _run(*command: str, cwd: Path, standard_input: bytes | None = None) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(command, cwd=cwd, input=standard_input, capture_output=True, check=False)  # noqa: S603 - fixed commands
