"""The command line of `python -m jobnik_devtools.doctor`, which `make doctor` and `make update` run."""

import argparse
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Final

from jobnik_devtools.doctor import chart, drift, lock, manager, settings
from jobnik_devtools.doctor.findings import (
    CannotCheckError,
    Finding,
    Level,
    RefusedError,
    format_check,
    not_checked,
    summary,
)
from jobnik_devtools.doctor.project import Project
from jobnik_devtools.doctor.restore import restore
from jobnik_devtools.doctor.update import update

Check = Callable[[Project], Iterator[Finding]]

CHECKS: Final[dict[str, Check]] = {
    "template": drift.check,
    "lock": lock.check,
    "settings": settings.check,
    "manager": manager.check,
    "chart": chart.check,
}
_DESCRIPTION: Final = """\
Check a rendered worker in the current folder: its template, lock file, settings, manager and chart. Each problem comes
with a way to fix it. Nothing is changed."""
_EPILOG: Final = """\
Signs: ✓ fine, ! worth knowing and possibly intended, ? could not be checked, ✗ problem. The exit code is 1 if there is
a problem, otherwise 0."""


def main() -> int:
    """Check the project in the current folder, restore one of its files, or update it; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m jobnik_devtools.doctor", description=_DESCRIPTION, epilog=_EPILOG, allow_abbrev=False
    )
    parser.add_argument("package", metavar="PACKAGE", help="the package of the worker, such as thumbnail_worker")
    action = parser.add_mutually_exclusive_group()
    action.add_argument(
        "--restore",
        metavar="FILE",
        help="instead of checking, restore FILE to what the template renders; commit its current contents first",
    )
    action.add_argument(
        "--update",
        action="store_true",
        help="instead of checking, update to the newest version of the template; commit everything first",
    )
    # The former name of --restore, which older Makefiles use; accepted until 1.0.
    action.add_argument("--heal", metavar="FILE", dest="restore", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    project = Project(Path.cwd(), arguments.package)
    if arguments.update:
        return _update(project)
    return _check_all(project) if arguments.restore is None else _restore(project, arguments.restore)


def _check_all(project: Project) -> int:
    everything = list[Finding]()
    with ThreadPoolExecutor() as pool:
        results = pool.map(run_check, CHECKS.values(), repeat(project))
        for name, findings in zip(CHECKS, results, strict=True):
            everything += findings
            lines = format_check(name, findings, terminal=sys.stdout.isatty())
            sys.stdout.writelines(f"{line}\n" for line in lines)
            sys.stdout.flush()
    sys.stdout.write(f"\n{summary(everything)}\n")
    return int(any(finding.level is Level.PROBLEM for finding in everything))


def run_check(check: Check, project: Project) -> list[Finding]:
    """Return the findings of a check; if it could not be completed, the last one says why."""
    findings = list[Finding]()
    try:
        findings.extend(check(project))
    except CannotCheckError as error:
        findings.append(not_checked(error))
    return findings


def _restore(project: Project, file: str) -> int:
    try:
        sys.stdout.write(f"{restore(project, file)}\n")
    except (RefusedError, CannotCheckError) as error:
        sys.stderr.write(f"{file} was not restored: {error}.\n")
        return 1
    return 0


def _update(project: Project) -> int:
    try:
        return update(project)
    except (RefusedError, CannotCheckError) as error:
        sys.stderr.write(f"Nothing was updated: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
