"""`copier update`: what is new in the template arrives, and what was changed in the project stays.

From every version that this repository holds. A shallow clone or an export without history holds but one, this working
tree: only a full clone tests them all, and the tests' names say which it did.
"""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from jobnik_devtools.doctor.ownership import WRITTEN_ONCE, is_written_once

from tests.template.owners import (
    BELOW_THE_MARK,
    MARK,
    Deed,
    assert_kept,
    edit_what_is_theirs,
    leave_alone,
    replace_the_example,
    take_over,
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

pytestmark = pytest.mark.timeout(60)

VERSIONS = find_versions()
DEEDS = (leave_alone, edit_what_is_theirs, replace_the_example)


def cases() -> list[object]:
    """Pair every version with every deed; of those between the first and the last, most are for the long run."""
    return [
        pytest.param(
            version,
            deed,
            id=f"{version}-{deed.__name__}",
            marks=[] if version in {VERSIONS[0], VERSIONS[-1]} or deed is edit_what_is_theirs else pytest.mark.matrix,
        )
        for version in VERSIONS
        for deed in DEEDS
    ]


@pytest.fixture
def newer(thin_template: Path, tmp_path: Path, tool: Tool) -> Path:
    """Give a clone of the template to make a newer one of."""
    clone = tmp_path / "newer"
    tool("git", "clone", "--quiet", thin_template, clone, cwd=tmp_path)
    return clone


def files(project: Path, *, owned: bool | None = None) -> dict[str, str]:
    """Read what is the owner's alone, or what is shared with the template, or both."""
    read = {
        str(path.relative_to(project)): path.read_text()
        for path in project.rglob("*")
        if path.is_file() and ".git" not in path.relative_to(project).parts
    }
    return {name: text for name, text in read.items() if owned is None or is_written_once(name) == owned}


@pytest.mark.parametrize(("version", "deed"), cases())
def test_every_version_becomes_the_newest(
    history: Path, tmp_path: Path, tool: Tool, version: Version, deed: Deed
) -> None:
    """Nothing conflicts, what the owner did holds, and what nobody touched is as in a project of the newest version."""
    project = render(history, tmp_path / "worker", tag=version.tag)
    take_over(project, deed, tool)
    before = files(project, owned=True)

    update(project)

    assert_kept(project, tool)
    assert files(project, owned=True) == before
    if deed is leave_alone:
        fresh = render(history, tmp_path / "fresh" / "worker")
        assert files(project, owned=False) == files(fresh, owned=False)


@pytest.mark.parametrize("bot", [False, True], ids=["make-update", "after-a-bot"])
@pytest.mark.parametrize("version", [pytest.param(version, id=str(version)) for version in (VERSIONS[0], VERSIONS[-1])])
def test_an_untouched_project_becomes_a_fresh_one(
    history: Path,
    tmp_path: Path,
    tool: Tool,
    version: Version,
    bot: bool,  # noqa: FBT001 - pytest passes it by name
) -> None:
    """By `make update` an example that nobody has changed follows the template, even if a bot had left it behind."""
    project = render(history, tmp_path / "worker", tag=version.tag)
    take_over(project, leave_alone, tool)
    if bot:
        update(project)
        commit(project, tool)

    make_update(project, tool)

    fresh = render(history, tmp_path / "fresh" / "worker")
    assert files(project) == files(fresh)


def test_an_example_that_was_begun_to_change_is_left_whole(newer: Path, tmp_path: Path, tool: Tool) -> None:
    """By `make update`, whoever has changed one of the example's files keeps all of them."""
    project = render(newer, tmp_path / "worker")
    take_over(project, lambda project: (project / "tests" / "unit" / "test_handlers.py").unlink(), tool)
    before = files(project, owned=True)
    for path in (newer / "template" / "src").rglob("*handlers.py*"):
        path.write_text('"""Written anew."""\n')
    commit(newer, tool)

    make_update(project, tool)

    assert files(project, owned=True) == before


def test_the_doctor_and_the_template_agree_on_what_is_written_once() -> None:
    """What the template excludes from updates is what the doctor calls its owner's."""
    excluded = yaml.safe_load((ROOT / "copier.yml").read_text())["_exclude"]
    found = [re.search(r"_copier_operation == 'update' %}/(.+?){%", pattern) for pattern in excluded]

    assert {match[1] for match in found if match} == {pattern.removesuffix("/*") for pattern in WRITTEN_ONCE}


def test_the_template_may_change_beside_what_is_the_owners(newer: Path, tmp_path: Path, tool: Tool) -> None:
    """New lines above every mark, and examples written anew, conflict with nothing that an owner did."""
    project = render(newer, tmp_path / "worker")
    take_over(project, edit_what_is_theirs, tool)
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
    assert (
        len(new) == len(BELOW_THE_MARK) == marked - 1
    )  # of the two files for continuous integration a project has one


def test_the_template_may_change_the_value_beside_the_owners(newer: Path, tmp_path: Path, tool: Tool) -> None:
    """Of all lines in values.yaml the owner sets every second and the template the others, and both are kept."""

    def set_values(values: Path, every_second_from: int, said: str) -> None:
        lines = values.read_text().splitlines()
        found = [number for number, line in enumerate(lines) if re.match(r" *[^#\s]\S*: ", line)]
        for number in found[every_second_from::2]:
            lines[number] += f"  # {said}"
        values.write_text("\n".join([*lines, ""]))

    project = render(newer, tmp_path / "worker")
    take_over(project, lambda project: set_values(project / "helm" / "values.yaml", 0, "mine"), tool)
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
def test_any_value_that_an_owner_sets_is_merged(history: Path, tmp_path: Path, version: Version, name: str) -> None:
    """No comment directly above or below a value has changed, so setting the value does not conflict with an update."""
    old = render(history, tmp_path / "old" / "worker", tag=version.tag) / name
    new = render(history, tmp_path / "new" / "worker") / name
    edited, lines, kept = tmp_path / "edited", old.read_text().splitlines(), new.read_text().splitlines()

    for number, line in enumerate(lines):
        if line in kept and re.match(r" *[^#\s]\S*: *\S", line):
            edited.write_text("\n".join([*lines[:number], f"{line}  # mine", *lines[number + 1 :], ""]))
            merge = ["git", "merge-file", "--stdout", edited, old, new]
            merged = subprocess.run(merge, capture_output=True, text=True, check=False)
            assert merged.returncode == 0, merged.stdout


def test_files_move_and_go_and_questions_come(newer: Path, tmp_path: Path, tool: Tool) -> None:
    """A file has its new name, another is gone, and a new question has the answer that changes nothing."""
    project = render(newer, tmp_path / "worker")
    take_over(project, leave_alone, tool)
    template = newer / "template"
    (template / "helm" / "RUNBOOK.md").rename(template / "helm" / "ALERTS.md")
    (template / "AGENTS.md.jinja").unlink()
    new = "greeting: { type: str, choices: [none, loud], default: none, help: How it greets. }\n"
    (newer / "copier.yml").write_text((newer / "copier.yml").read_text() + new)
    (template / "{% if greeting == 'loud' %}GREETING.md{% endif %}").write_text("Hello!\n")
    commit(newer, tool)

    update(project)

    there = files(project, owned=False)
    assert "helm/ALERTS.md" in there
    assert not {"helm/RUNBOOK.md", "AGENTS.md", "GREETING.md"} & there.keys()
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
    """Without tags the newest commit is the newest version; with them, and an index, the newest tag."""
    if tagged:
        tool("git", "tag", "v7.0.0", cwd=newer)
    project = render(newer, tmp_path / "worker", sdk_source=sdk_source)
    take_over(project, leave_alone, tool)
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
    """Where git writes CRLF a project keeps LF, since to Copier, which asks no settings, all of it would be changed."""
    (tmp_path / "gitconfig").write_text("[core]\nautocrlf = true\nsafecrlf = false\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    take_over(render(newer, tmp_path / "worker"), leave_alone, tool)
    (newer / "template" / "NEW.md").write_text("New in this version.\n")
    commit(newer, tool)
    tool("git", "clone", "--quiet", "worker", "checkout", cwd=tmp_path)

    update(tmp_path / "checkout")

    assert (tmp_path / "checkout" / "NEW.md").exists()
    assert not [path for path in (tmp_path / "checkout").glob("**/[!.]*.*") if b"\r" in path.read_bytes()]
