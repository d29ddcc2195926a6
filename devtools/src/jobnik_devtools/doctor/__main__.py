"""`python -m jobnik_devtools.doctor PACKAGE [--heal FILE | --update]`, which `make doctor` and `make update` say."""

import argparse
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Final

from jobnik_devtools.doctor import chart, drift, lock, manager, settings
from jobnik_devtools.doctor.findings import CannotCheckError, Finding, Level, RefusedError, shown, summary, unknown
from jobnik_devtools.doctor.healing import heal
from jobnik_devtools.doctor.project import Project
from jobnik_devtools.doctor.updating import update

Check = Callable[[Project], Iterator[Finding]]

CHECKS: Final[dict[str, Check]] = {
    "template": drift.check,
    "lock": lock.check,
    "settings": settings.check,
    "manager": manager.check,
    "chart": chart.check,
}
_EXPLANATION: Final = """\
✓ is well, ! is good to know and may be meant so, ? could not be checked, ✗ is wrong. The exit code is 1 if anything is
wrong, else 0."""


def main() -> int:
    """Look at the project in the working directory, put one of its files back, or update it."""
    parser = argparse.ArgumentParser(
        prog="python -m jobnik_devtools.doctor",
        description="Say what is wrong with a generated worker in the working directory, and what to do about it.",
        epilog=_EXPLANATION,
    )
    parser.add_argument("package", metavar="PACKAGE", help="the worker's package, such as thumbnail_worker")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--heal", metavar="FILE", help="instead, put FILE back to what the template renders; git must have it as it is"
    )
    instead.add_argument(
        "--update", action="store_true", help="instead, bring what is new in the template; everything must be committed"
    )
    arguments = parser.parse_args()
    project = Project(Path.cwd(), arguments.package)
    if arguments.update:
        return _update(project)
    return _examine(project) if arguments.heal is None else _heal(project, arguments.heal)


def _examine(project: Project) -> int:
    everything = list[Finding]()
    with ThreadPoolExecutor() as pool:
        found = pool.map(examined, CHECKS.values(), repeat(project))
        for name, findings in zip(CHECKS, found, strict=True):
            everything += findings
            lines = shown(name, findings, terminal=sys.stdout.isatty())
            sys.stdout.writelines(f"{line}\n" for line in lines)
            sys.stdout.flush()
    sys.stdout.write(f"\n{summary(everything)}\n")
    return int(any(finding.level is Level.WRONG for finding in everything))


def examined(check: Check, project: Project) -> list[Finding]:
    """Return what a check finds, and why it went no further if it did not."""
    found = list[Finding]()
    try:
        found.extend(check(project))
    except CannotCheckError as error:
        found.append(unknown(error))
    return found


def _heal(project: Project, file: str) -> int:
    try:
        sys.stdout.write(f"{heal(project, file)}\n")
    except (RefusedError, CannotCheckError) as error:
        sys.stderr.write(f"{file} is not put back: {error}.\n")
        return 1
    return 0


def _update(project: Project) -> int:
    try:
        return update(project)
    except (RefusedError, CannotCheckError) as error:
        sys.stderr.write(f"Not updated: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
