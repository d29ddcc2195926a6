"""Updates a project to the newest version of its template."""

import sys
from collections.abc import Mapping, Sequence

from jobnik_devtools.doctor.findings import CannotCheckError, RefusedError
from jobnik_devtools.doctor.ownership import REWRITTEN, is_in
from jobnik_devtools.doctor.project import Project, failure_cause, find_uv
from jobnik_devtools.doctor.template import ANSWERS, COPIER, Rendering, Template, read_answers

Files = Mapping[str, str]


def update(project: Project) -> int:
    """Run `copier update`, and return its exit code, or 1 if it left conflicts.

    Copier does not change the files that the owner rewrites: the example and the documents. They are updated
    afterwards, but the example only if the owner has changed none of its files, so that no project gets half of another
    example.

    Raises:
        RefusedError: something is not committed, or the worker was renamed in the answers alone; nothing was changed.
        CannotCheckError: the folder is not in a git repository, the template cannot be read, or it refuses an answer;
            nothing was changed.
    """
    _check_committed(project)
    _check_name(project)
    answers = {group: _answers_of(project, group) for group in REWRITTEN}
    rendered = {text: Template(project, text).current() for text in set(answers.values())}
    files = {group: _files(rendered[text], group) for group, text in answers.items()}
    unchanged = [group for group in REWRITTEN if _are_in(project, files[group])]
    newest = Template(project).latest()
    code = project.show(find_uv(), *COPIER, "update", "--defaults")
    if code == 0:
        changed = [name for group in unchanged for name in _replace(project, files[group], _files(newest, group))]
        if changed:
            sys.stdout.write(f"You had not changed these files, so they were updated as well: {', '.join(changed)}\n")
    conflicts = _unmerged(project)
    if conflicts:
        sys.stdout.flush()
        sys.stderr.write(_conflict_text(conflicts))
    return code or int(bool(conflicts))


def _unmerged(project: Project) -> Sequence[str]:
    """Return the files in which the project and the template changed the same lines."""
    status = project.run("git", "diff", "--name-only", "--diff-filter=U", "--relative", "-z")
    return sorted(filter(None, status.stdout.split("\0")))


def _conflict_text(conflicts: Sequence[str]) -> str:
    lines = [
        "The update is not complete. These files have conflicts, because you and the template changed the same lines:",
        *(f"    {name}" for name in conflicts),
        "Edit the lines between <<<<<<< and >>>>>>> in each file, then run git add FILE.",
        "To choose one version of a whole file, first run git checkout --ours FILE (yours) or --theirs FILE (new).",
    ]
    if "Makefile" in conflicts:
        lines.append(
            "No make command works until the Makefile is merged. "
            "To continue with your version, run git checkout --ours Makefile, then git add Makefile."
        )
    return "\n".join([*lines, ""])


def _check_committed(project: Project) -> None:
    # Only this folder counts: the repository may contain other projects.
    status = project.run("git", "status", "--porcelain", "--", ".")
    if status.returncode != 0:
        cause = failure_cause(status)
        raise CannotCheckError(f"git cannot read this folder: {cause}. If it has no repository, run git init")
    if status.stdout:
        raise RefusedError(f"commit or stash these changes first:\n{status.stdout.rstrip()}")


def _check_name(project: Project) -> None:
    """Check that the recorded name is that of the package, because Copier would render a second package."""
    name = str(read_answers(project).get("service_name"))
    package = name.replace("-", "_")
    if package != project.package:
        raise RefusedError(
            f"{ANSWERS} has the name {name}, but the package is {project.package}. Rename it first, in one commit: "
            f"run git mv src/{project.package} src/{package}, and replace the name in all files"
        )


def _answers_of(project: Project, group: Sequence[str]) -> str | None:
    """Return the answers that a group of files was rendered from; None for the present ones.

    They differ after an update that ran only Copier, such as an update by a bot: it changes the answers, but not these
    files. Therefore the last commit that changed them counts, or the first commit if they were never committed.
    """
    # In a path of git, as in fnmatch, an asterisk also matches slashes.
    commits = project.run("git", "log", "-1", "--format=%H", "--", *group).stdout.split()
    commits = commits or project.run("git", "log", "--reverse", "--format=%H", "--", ANSWERS).stdout.split()
    commit = commits[0] if commits else ""
    answers = project.run("git", "show", f"{commit}:./{ANSWERS}")
    return answers.stdout if commit and answers.returncode == 0 else None


def _files(rendering: Rendering, group: Sequence[str]) -> Files:
    return {name: text for name, text in rendering.files.items() if is_in(name, group)}


def _are_in(project: Project, files: Files) -> bool:
    """Return whether the project has these files with these contents."""
    paths = {project.root / name: text for name, text in files.items()}
    return all(path.is_file() and path.read_text("utf-8", "replace") == text for path, text in paths.items())


def _replace(project: Project, old: Files, new: Files) -> Sequence[str]:
    """Replace files, and return the names of those that have changed."""
    changed = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    for name in changed:
        file = project.root / name
        if name not in new:
            file.unlink()
        elif name in old or not file.exists():  # a new file of the template may exist already, with other contents
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(new[name], "utf-8")
    return changed
