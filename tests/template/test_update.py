"""`copier update` applies the changes of the template and keeps the changes of the project.

The tests update from every version in this repository. A shallow clone or an export without history contains only the
version of this working tree, so only a full clone tests all versions. The ids of the tests contain the versions.
"""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from jobnik_devtools.doctor.ownership import REWRITTEN, is_in, is_written_once

from tests.template.owner_changes import (
    ADDITIONS,
    MARK,
    OwnerChange,
    assert_kept,
    change_nothing,
    commit_owner_change,
    edit_owned_files,
    replace_the_example,
)
from tests.template.versions import (
    WITHOUT_EMPTY_LINES,
    Version,
    commit,
    find_versions,
    make_update,
    render,
    update,
)
from tools.snapshot import ROOT

Tool = Callable[..., str]
Render = Callable[..., Path]

pytestmark = pytest.mark.timeout(180)

VERSIONS = find_versions()
OWNER_CHANGES = (change_nothing, edit_owned_files, replace_the_example)


def cases() -> list[object]:
    """Pair every version with every change. Most pairs of the versions in the middle run only in `make matrix`."""
    return [
        pytest.param(
            version,
            change,
            id=f"{version}-{change.__name__}",
            marks=[] if version in {VERSIONS[0], VERSIONS[-1]} or change is edit_owned_files else pytest.mark.matrix,
        )
        for version in VERSIONS
        for change in OWNER_CHANGES
    ]


@pytest.fixture
def newer(thin_template: Path, tmp_path: Path, tool: Tool) -> Path:
    """Return a clone of the template in which a test can create a newer version."""
    clone = tmp_path / "newer"
    tool("git", "clone", "--quiet", thin_template, clone, cwd=tmp_path)
    return clone


def files(project: Path, *, owned: bool | None = None) -> dict[str, str]:
    """Return the files of a project: the owner's if `owned` is true, the template's if it is false, or all."""
    read = {
        str(path.relative_to(project)): path.read_text()
        for path in project.rglob("*")
        if path.is_file() and ".git" not in path.relative_to(project).parts
    }
    return {name: text for name, text in read.items() if owned is None or is_written_once(name) == owned}


@pytest.mark.parametrize(("version", "change"), cases())
def test_every_version_updates_to_the_newest(
    render_version: Render, tmp_path: Path, tool: Tool, version: Version, change: OwnerChange
) -> None:
    """An update has no conflicts, keeps the owner's change, and brings unchanged files to the newest version."""
    project = render_version(tmp_path / "worker", version.tag)
    commit_owner_change(project, change, tool)
    before = files(project, owned=True)

    update(project)

    assert_kept(project, tool)
    assert files(project, owned=True) == before
    if change is change_nothing:
        fresh = render_version(tmp_path / "fresh" / "worker")
        assert files(project, owned=False) == files(fresh, owned=False)


@pytest.mark.parametrize("bot", [False, True], ids=["make-update", "after-a-bot"])
@pytest.mark.parametrize("version", [pytest.param(version, id=str(version)) for version in (VERSIONS[0], VERSIONS[-1])])
def test_an_unchanged_project_becomes_a_new_one(
    render_version: Render,
    tmp_path: Path,
    tool: Tool,
    version: Version,
    bot: bool,  # noqa: FBT001 - pytest passes it by name
) -> None:
    """`make update` also updates an unchanged example, even if an earlier update by a bot did not."""
    project = render_version(tmp_path / "worker", version.tag)
    commit_owner_change(project, change_nothing, tool)
    if bot:
        update(project)
        commit(project, tool)

    make_update(project, tool)

    fresh = render_version(tmp_path / "fresh" / "worker")
    assert files(project) == files(fresh)


def test_a_changed_example_is_not_updated(newer: Path, tmp_path: Path, tool: Tool) -> None:
    """If one file of the example has changed, `make update` keeps all its files."""
    project = render(newer, tmp_path / "worker")
    commit_owner_change(project, lambda project: (project / "tests" / "unit" / "test_handlers.py").unlink(), tool)
    before = {name: text for name, text in files(project, owned=True).items() if is_in(name, REWRITTEN[0])}
    for path in (newer / "template" / "src").rglob("*handlers.py*"):
        path.write_text('"""Written anew."""\n')
    commit(newer, tool)

    make_update(project, tool)

    assert {name: text for name, text in files(project).items() if is_in(name, REWRITTEN[0])} == before


def test_the_doctor_and_the_template_agree_on_ownership() -> None:
    """The files that the template excludes from updates are those that the doctor assigns to the owner."""
    excluded = yaml.safe_load((ROOT / "copier.yml").read_text())["_exclude"]
    found = [re.search(r"_copier_operation == 'update' %}/(.+?){%", pattern) for pattern in excluded]

    assert {match[1] for match in found if match} == {
        pattern.removesuffix("/*") for group in REWRITTEN for pattern in group
    }


@pytest.mark.parametrize("name", ["README.md", "AGENTS.md"])
def test_a_rewritten_document_is_left_alone(newer: Path, tmp_path: Path, tool: Tool, name: str) -> None:
    """An update does not touch a document that its owner has rewritten or deleted, also if the template changes it."""

    def rewrite(project: Path) -> None:
        (project / name).write_text("# Mine\n")

    rewritten, deleted = (render(newer, tmp_path / folder / "worker") for folder in ("rewritten", "deleted"))
    commit_owner_change(rewritten, rewrite, tool)
    commit_owner_change(deleted, lambda project: (project / name).unlink(), tool)
    (newer / "template" / f"{name}.jinja").write_text("# Written anew\n")
    commit(newer, tool)

    for project in (rewritten, deleted):
        update(project)
    assert (rewritten / name).read_text() == "# Mine\n"
    assert not (deleted / name).exists()


def test_template_changes_do_not_conflict_with_owner_changes(newer: Path, tmp_path: Path, tool: Tool) -> None:
    """New lines above every mark and a rewritten example do not conflict with any change of the owner."""
    project = render(newer, tmp_path / "worker")
    commit_owner_change(project, edit_owned_files, tool)
    marked = 0
    for path in sorted((newer / "template").rglob("*")):
        if path.is_file() and MARK.search(text := path.read_text()):
            path.write_text(MARK.sub(lambda mark: f"# New in this version.\n{mark[0]}", text))
            marked += 1
        elif re.search(r"(definitions|handlers|settings|seed)\.py", path.name):
            path.write_text('"""Written anew."""\n')
    commit(newer, tool)

    update(project)

    assert_kept(project, tool)
    new = [name for name, text in files(project, owned=False).items() if "# New in this version.\n" in text]
    assert len(new) == len(ADDITIONS) == marked - 1  # a project has one of the two CI files


def test_adjacent_values_of_owner_and_template_are_merged(newer: Path, tmp_path: Path, tool: Tool) -> None:
    """If the owner and the template change alternating lines of values.yaml, both changes are kept."""

    def set_values(values: Path, every_second_from: int, comment: str) -> None:
        lines = values.read_text().splitlines()
        found = [number for number, line in enumerate(lines) if re.match(r" *[^#\s]\S*: ", line)]
        for number in found[every_second_from::2]:
            lines[number] += f"  # {comment}"
        values.write_text("\n".join([*lines, ""]))

    project = render(newer, tmp_path / "worker")
    commit_owner_change(project, lambda project: set_values(project / "helm" / "values.yaml", 0, "mine"), tool)
    set_values(newer / "template" / "helm" / "values.yaml.jinja", 1, "new")
    commit(newer, tool)

    update(project)

    values = (project / "helm" / "values.yaml").read_text()
    assert values.count("  # mine\n") - values.count("  # new\n") in {0, 1}
    assert_kept(project, tool)


@pytest.mark.parametrize("name", ["helm/values.yaml", "helm/Chart.yaml"])
@pytest.mark.parametrize(
    "version",
    [pytest.param(version, id=str(version)) for version in VERSIONS if version.revision not in WITHOUT_EMPTY_LINES],
)
def test_any_value_that_an_owner_sets_is_merged(
    render_version: Render, tmp_path: Path, version: Version, name: str
) -> None:
    """Setting any single value does not conflict with an update, because the adjacent comments have not changed."""
    old = render_version(tmp_path / "old" / "worker", version.tag) / name
    new = render_version(tmp_path / "new" / "worker") / name
    edited, lines, kept = tmp_path / "edited", old.read_text().splitlines(), new.read_text().splitlines()

    for number, line in enumerate(lines):
        if line in kept and re.match(r" *[^#\s]\S*: *\S", line):
            edited.write_text("\n".join([*lines[:number], f"{line}  # mine", *lines[number + 1 :], ""]))
            merge = ["git", "merge-file", "--stdout", edited, old, new]
            merged = subprocess.run(merge, capture_output=True, text=True, check=False)
            assert merged.returncode == 0, merged.stdout


def test_an_update_moves_and_removes_files_and_adds_questions(newer: Path, tmp_path: Path, tool: Tool) -> None:
    """A file is renamed, another is removed, and a new question gets its default answer."""
    project = render(newer, tmp_path / "worker")
    commit_owner_change(project, change_nothing, tool)
    template = newer / "template"
    (template / "helm" / "RUNBOOK.md").rename(template / "helm" / "ALERTS.md")
    (template / "helm" / "templates" / "NOTES.txt").unlink()
    new = "greeting: { type: str, choices: [none, loud], default: none, help: How it greets. }\n"
    (newer / "copier.yml").write_text((newer / "copier.yml").read_text() + new)
    (template / "{% if greeting == 'loud' %}GREETING.md{% endif %}").write_text("Hello!\n")
    commit(newer, tool)

    update(project)

    there = files(project, owned=False)
    assert "helm/ALERTS.md" in there
    assert not {"helm/RUNBOOK.md", "helm/templates/NOTES.txt", "GREETING.md"} & there.keys()
    assert yaml.safe_load(there[".copier-answers.yml"])["greeting"] == "none"
    commit(project, tool)
    update(project, greeting="loud")
    assert (project / "GREETING.md").exists()


@pytest.mark.parametrize(("sdk_source", "tagged"), [("git", False), ("index", True)])
def test_an_update_follows_commits_and_tags(
    newer: Path,
    tmp_path: Path,
    tool: Tool,
    sdk_source: str,
    tagged: bool,  # noqa: FBT001 - pytest passes it by name
) -> None:
    """Without tags an update takes the newest commit; with tags it takes the newest tag."""
    if tagged:
        tool("git", "tag", "v7.0.0", cwd=newer)
    project = render(newer, tmp_path / "worker", sdk_source=sdk_source)
    commit_owner_change(project, change_nothing, tool)
    (newer / "template" / "NEW.md").write_text("New in this version.\n")
    commit(newer, tool)
    if tagged:
        tool("git", "tag", "v7.0.1", cwd=newer)

    update(project)

    fresh = render(newer, tmp_path / "fresh" / "worker", sdk_source=sdk_source)
    assert (fresh / "NEW.md").exists()
    assert files(project, owned=False) == files(fresh, owned=False)
    newest = tool("git", "describe", "--tags", "--always", cwd=newer).strip()
    assert yaml.safe_load((project / ".copier-answers.yml").read_text())["_commit"] == newest


def test_a_checkout_with_windows_line_endings_is_updated(
    newer: Path, tmp_path: Path, tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A project keeps LF even if git is configured for CRLF, which Copier would treat as a change of every line."""
    (tmp_path / "gitconfig").write_text("[core]\nautocrlf = true\nsafecrlf = false\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    commit_owner_change(render(newer, tmp_path / "worker"), change_nothing, tool)
    (newer / "template" / "NEW.md").write_text("New in this version.\n")
    commit(newer, tool)
    tool("git", "clone", "--quiet", "worker", "checkout", cwd=tmp_path)

    update(tmp_path / "checkout")

    assert (tmp_path / "checkout" / "NEW.md").exists()
    assert not [path for path in (tmp_path / "checkout").glob("**/[!.]*.*") if b"\r" in path.read_bytes()]
