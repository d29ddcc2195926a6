"""How the project differs from its template: edited here, deleted here, newer there."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from jobnik_sdk.doctor.findings import Finding, note, well
from jobnik_sdk.doctor.ownership import with_yours
from jobnik_sdk.doctor.project import Project
from jobnik_sdk.doctor.rendering import Rendering, Template

_MOST_NAMES: Final = 6


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
    edited = list[str]()
    deleted = list[str]()
    for name in followed.owned():
        file = project.root / name
        if not file.exists():
            deleted.append(name)
        elif not file.is_file() or _is_edited(name, followed.files[name], file.read_text("utf-8", "replace")):
            edited.append(name)
    for names, done, remedy in (
        (edited, "edited", "keep it, or put back what the template has"),
        (deleted, "deleted", "leave it out, or bring it back"),
    ):
        if names:
            yield note(f"{done} here: {listed(names)}", f"{remedy}: make doctor HEAL={names[0]}")


def _is_edited(name: str, rendered: str, here: str) -> bool:
    """Tell whether something of the template's in a file was changed."""
    return with_yours(name, rendered, here) != here


def _news(followed: Rendering, newest: Rendering) -> str:
    names = sorted({*followed.owned(), *newest.owned()})
    newer = [name for name in names if followed.files.get(name) != newest.files.get(name)]
    what = listed(newer) if newer else "nothing"
    return f"{newest.version} is there, and this follows {followed.version}; newer there: {what}"


def listed(names: Sequence[str]) -> str:
    """Return the first names and how many more there are."""
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
