"""Whether uv.lock fits pyproject.toml."""

from collections.abc import Iterator
from typing import Final

from jobnik_devtools.doctor.findings import CannotCheckError, Finding, well, wrong
from jobnik_devtools.doctor.project import Project, complaint

_STALE: Final = 1
"""uv's exit code for a lock file that does not fit; it has others for what keeps it from looking."""


def check(project: Project) -> Iterator[Finding]:
    """Ask uv."""
    result = project.uv("lock", "--check", "--quiet")
    if result.returncode == 0:
        yield well("uv.lock fits pyproject.toml")
    elif result.returncode == _STALE:
        yield wrong("uv.lock does not fit pyproject.toml", "uv lock, then commit uv.lock")
    else:
        raise CannotCheckError(complaint(result))
