"""Checks whether uv.lock matches pyproject.toml."""

from collections.abc import Iterator
from typing import Final

from jobnik_devtools.doctor.findings import CannotCheckError, Finding, ok, problem
from jobnik_devtools.doctor.project import Project, failure_cause

_OUTDATED: Final = 1
"""The exit code of uv for a lock file that does not match; other codes mean that uv could not check it."""


def check(project: Project) -> Iterator[Finding]:
    """Run `uv lock --check`."""
    result = project.uv("lock", "--check", "--quiet")
    if result.returncode == 0:
        yield ok("uv.lock matches pyproject.toml")
    elif result.returncode == _OUTDATED:
        yield problem("uv.lock does not match pyproject.toml", "run uv lock, then commit uv.lock")
    else:
        raise CannotCheckError(failure_cause(result))
