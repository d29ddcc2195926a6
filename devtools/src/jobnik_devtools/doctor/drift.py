"""How the project differs from its template: not merged, edited or deleted here, newer there."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from jobnik_devtools.doctor.findings import Finding, note, well, wrong
from jobnik_devtools.doctor.ownership import is_written_once, is_yours, with_yours
from jobnik_devtools.doctor.project import Project
from jobnik_devtools.doctor.rendering import Rendering, Template

_MOST_NAMES: Final = 6
_CONFLICT: Final = "<<<<<<< before updating"
"""How Copier marks what it could not merge."""


def check(project: Project) -> Iterator[Finding]:
    """Compare the project with what the template renders from its answers: at its version, and at the newest."""
    template = Template(project)
    with ThreadPoolExecutor() as pool:
        newer = pool.submit(template.newest)
        followed = template.followed()
        yield from (findings := list(_differences(project, followed)))
        newest = newer.result()
    if newest is not None:
        yield note(_news(followed, newest), "commit what you have, then make update")
    elif not findings:
        yield well(f"as the template renders it at {followed.version}, its newest version")


def _differences(project: Project, followed: Rendering) -> Iterator[Finding]:
    here = {name: _text(project.root / name) for name in sorted(followed.files)}
    unmerged = [name for name, text in here.items() if text is not None and _CONFLICT in text]
    if unmerged:
        yield wrong(f"not merged yet: {_listed(unmerged)}", "choose between <<<<<<< and >>>>>>> there, then git add it")
    edited, deleted = list[str](), list[str]()
    for name, text in here.items():
        if text is None:
            if not is_written_once(name):
                deleted.append(name)
        elif name not in unmerged and not is_yours(name) and with_yours(name, followed.files[name], text) != text:
            edited.append(name)
    for names, done, remedy in (
        (edited, "edited", "keep it, or put back what the template has"),
        (deleted, "deleted", "leave it out, or bring it back"),
    ):
        if names:
            yield note(f"{done} here: {_listed(names)}", f"{remedy}: make doctor HEAL={names[0]}")


def _text(file: Path) -> str | None:
    """Return what a file says; None if there is none."""
    return file.read_text("utf-8", "replace") if file.is_file() else None


def _news(followed: Rendering, newest: Rendering) -> str:
    names = (name for name in sorted({*followed.files, *newest.files}) if not is_written_once(name))
    newer = [name for name in names if followed.files.get(name) != newest.files.get(name)]
    what = _listed(newer) if newer else "nothing"
    return f"{newest.version} is there, and this follows {followed.version}; newer there: {what}"


def _listed(names: Sequence[str]) -> str:
    """Return the first names and how many more there are."""
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
