"""Compares the project with its template: conflicts, edited files, deleted files, and what is new in the template."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from jobnik_devtools.doctor.findings import Finding, note, ok, problem
from jobnik_devtools.doctor.ownership import is_owned, is_written_once, with_own_parts
from jobnik_devtools.doctor.project import Project
from jobnik_devtools.doctor.template import Rendering, Template

_MAX_NAMES: Final = 6
_CONFLICT: Final = "<<<<<<< before updating"
"""Copier's mark of a conflict that it could not merge."""


def check(project: Project) -> Iterator[Finding]:
    """Compare the project with what the template renders from its answers, at its version and at the newest one."""
    template = Template(project)
    with ThreadPoolExecutor() as pool:
        newer = pool.submit(template.newest)
        current = template.current()
        yield from (findings := list(_differences(project, current)))
        newest = newer.result()
    if newest is not None:
        yield note(_update_text(current, newest), "commit your work, then run make update")
    elif not findings:
        yield ok(f"the project matches the template at {current.version}, the newest version")


def _differences(project: Project, current: Rendering) -> Iterator[Finding]:
    contents = {name: _text(project.root / name) for name in sorted(current.files)}
    unmerged = [name for name, text in contents.items() if text is not None and _CONFLICT in text]
    if unmerged:
        yield problem(
            f"conflicts not merged: {_join_names(unmerged)}",
            "edit the lines between <<<<<<< and >>>>>>>, then git add the file",
        )
    edited, deleted = list[str](), list[str]()
    for name, text in contents.items():
        if text is None:
            if not is_written_once(name):
                deleted.append(name)
        elif name not in unmerged and not is_owned(name) and with_own_parts(name, current.files[name], text) != text:
            edited.append(name)
    for names, done, keep in ((edited, "edited", "keep your version"), (deleted, "deleted", "leave it deleted")):
        if names:
            yield note(
                f"{done} in this project: {_join_names(names)}", f"{keep}, or run make doctor RESTORE={names[0]}"
            )


def _text(file: Path) -> str | None:
    """Return the text of a file; None if it does not exist."""
    return file.read_text("utf-8", "replace") if file.is_file() else None


def _update_text(current: Rendering, newest: Rendering) -> str:
    names = (name for name in sorted({*current.files, *newest.files}) if not is_written_once(name))
    changed = [name for name in names if current.files.get(name) != newest.files.get(name)]
    what = _join_names(changed) if changed else "no files"
    return f"template {newest.version} is available, this project follows {current.version}; it changes {what}"


def _join_names(names: Sequence[str]) -> str:
    """Return the first names, and the number of further ones."""
    more = len(names) - _MAX_NAMES
    return ", ".join(names[:_MAX_NAMES]) + (f" and {more} more" if more > 0 else "")
