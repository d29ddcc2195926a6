"""The doctor of a generated worker: what its checks say, and how that is shown."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import pytest
from jobnik_devtools.doctor import chart_values, manager, settings
from jobnik_devtools.doctor.__main__ import examined
from jobnik_devtools.doctor.findings import CannotCheckError, Finding, Level, note, shown, summary, well, wrong
from jobnik_devtools.doctor.ownership import is_yours, with_yours
from jobnik_devtools.doctor.project import Project, complaint
from jobnik_devtools.doctor.rendering import recorded, revision
from jobnik_sdk import WorkerSettings

if TYPE_CHECKING:
    from tests.unit.sdk.conftest import Wire

PYPROJECT = """\
[project]
version = "0.1.0"
dependencies = [
  "jobnik-sdk==0.1.0",
  # Yours, below this line.
  "pillow>=13.0",
]

[tool.ruff]
line-length = 120
target-version = "py311"
"""


def test_what_is_said_in_lines() -> None:
    """The name of a check stands once, and so does a remedy for several findings in a row."""
    findings = [wrong("one", "mend it"), wrong("two", "mend it"), note("three", "or not")]
    assert list(shown("lock", findings, terminal=False)) == [
        "  ✗ lock       one",
        "  ✗            two",
        "               → mend it",
        "  !            three",
        "               → or not",
    ]


def test_a_narrow_terminal_breaks_lines_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal signs are coloured, and what does not fit goes on below itself; elsewhere lines stay whole."""
    monkeypatch.setenv("COLUMNS", "40")
    finding = wrong("a text that is longer than the line", "and-a-command --that-stays whole")
    assert list(shown("lock", [finding], terminal=True)) == [
        "  \33[31m✗\33[0m lock       a text that is longer",
        "               than the line",
        "               → and-a-command",
        "                 --that-stays whole",
    ]


def test_the_last_line_counts() -> None:
    """It says how many findings there are that matter, or that there are none."""
    assert summary([well("fine")]) == "All is well."
    assert summary([well("fine"), note("x", "y"), wrong("x", "y"), wrong("x", "y")]) == "2 wrong, 1 to know."


def test_a_check_that_cannot_be_made_says_so() -> None:
    """What it had found before stays, and the reason comes after that."""

    def check(_: Project) -> Iterator[Finding]:
        yield well("as far as I can see")
        raise CannotCheckError("the line is dead", "mend the line")

    assert examined(check, Project(Path(), "package")) == [
        well("as far as I can see"),
        Finding(Level.UNKNOWN, "not checked: the line is dead", "mend the line"),
    ]


@pytest.mark.parametrize(
    ("name", "yours"),
    [
        ("src/thumbnail_worker/handlers.py", True),
        ("src/thumbnail_worker/__main__.py", False),
        ("tests/unit/test_handlers.py", True),
        ("helm/values.yaml", True),
        ("helm/values.schema.json", False),
        ("Makefile", False),
    ],
)
def test_some_files_are_the_projects_own(name: str, yours: bool) -> None:  # noqa: FBT001 pytest passes it by name
    """What is rendered once and edited ever after is no drift."""
    assert is_yours(name) == yours


def test_dependencies_versions_and_additions_to_pyproject_are_the_projects_own() -> None:
    """What is changed below the line "Yours", a version and a table of one's own stay; other lines come back."""
    own = PYPROJECT.replace('"pillow>=13.0"', '"tifffile>=2025"').replace('version = "0.1.0"', 'version = "2.0.0"')
    own += "\n[tool.mypy]\nstrict = true\n"
    assert with_yours("pyproject.toml", PYPROJECT, own) == own
    edited = own.replace("line-length = 120", "line-length = 80").replace('  "jobnik-sdk==0.1.0",\n', "")
    assert with_yours("pyproject.toml", PYPROJECT, edited) == own


def test_a_chart_has_versions_of_its_own() -> None:
    """Those that a release of the worker changes are no drift; everything else in Chart.yaml is."""
    rendered = 'name: w\nversion: 0.1.0\nappVersion: "0.1.0"\nkubeVersion: ">=1.27.0-0"\n'
    released = rendered.replace("0.1.0", "0.2.0")
    assert with_yours("helm/Chart.yaml", rendered, released) == released
    assert with_yours("helm/Chart.yaml", rendered, released.replace("1.27", "1.20")) == released


@pytest.mark.parametrize("gap", ["", "\n"])
def test_what_is_added_below_the_line_yours_stays(gap: str) -> None:
    """In any file of the template; what is added elsewhere does not."""
    rendered = "FROM python\n\n# Yours, below this line: packages.\n\nCOPY /app\n"
    own = rendered.replace("packages.\n", f"packages.\n{gap}RUN apt-get install gdal\n")
    assert with_yours("Dockerfile", rendered, own) == own
    assert with_yours("Dockerfile", rendered, own + "USER root\n") == own


def test_the_answers_say_where_a_project_is_from() -> None:
    """Address and version are read as Copier writes them."""
    answers = "# A comment\n_commit: '1234567'\n_src_path: git+https://example.com/jobnik.git\nci: github\n"
    assert recorded(answers, "_commit") == "1234567"
    assert recorded(answers, "_src_path") == "git+https://example.com/jobnik.git"


@pytest.mark.parametrize(("version", "known"), [("v0.1.0", "v0.1.0"), ("v0.1.0-3-g0a1b2c3", "0a1b2c3")])
def test_a_version_past_a_tag_is_its_commit(version: str, known: str) -> None:
    """Git fetches tags and commits only."""
    assert revision(version) == known


@pytest.mark.parametrize(
    ("stderr", "cause"),
    [
        ("error: Request failed\n  cause: Failed to fetch: /simple\n  cause: no route\n", "no route"),
        ("Traceback:\n  ...\nValueError: Local template must be a directory.\n", "Local template must be a directory."),
        ("Command: git\nStderr:       | fatal: no such host\n", "no such host"),
        (
            "Error: execution error at (x.yaml:1:3): too many\n\nUse --debug flag\n",
            "execution error at (x.yaml:1:3): too many",
        ),
        ("Updating is only supported in git.\n", "Updating is only supported in git."),
        ("", "it ended with 3"),
    ],
)
def test_the_cause_of_a_failure_is_its_last_words(stderr: str, cause: str) -> None:
    """As uv, Copier, git and helm say them."""
    assert complaint(subprocess.CompletedProcess([], 3, "", stderr)) == cause


async def test_a_manager_that_answers_is_well(wire: "Wire") -> None:
    """It says its version."""
    wire.will_answer(httpx2.Response(200, json={"protocol": "1", "version": "0.1.0", "features": []}))
    assert await manager.look(wire.client) == well("http://manager answers, version 0.1.0")


async def test_another_protocol_is_wrong(wire: "Wire") -> None:
    """A manager of another protocol is named, with both versions."""
    wire.will_answer(httpx2.Response(200, json={"protocol": "2", "version": "9.0.0", "features": []}))
    found = await manager.look(wire.client)
    assert found.level is Level.WRONG
    assert "version 2 of the protocol, this worker version 1" in found.text


async def test_part_a_alone_is_worth_a_word(wire: "Wire", refusal: Callable[[int, str], httpx2.Response]) -> None:
    """A manager without capabilities is known by what it says of a job that there is not."""
    wire.will_answer(refusal(404, "NOT_FOUND"), refusal(404, "JOB_NOT_FOUND"))
    found = await manager.look(wire.client)
    assert found.level is Level.NOTE
    assert "part A" in found.text


@pytest.mark.parametrize(
    ("answers", "text"),
    [
        ([httpx2.ConnectError("no route")], "does not answer: no route."),
        ([httpx2.Response(404, text="<html>"), httpx2.Response(404, text="<html>")], "is no Jobnik manager"),
        ([httpx2.Response(404, text="<html>"), httpx2.Response(200, text="<html>")], "is no Jobnik manager"),
        ([httpx2.Response(200, text="<html>")], "is no Jobnik manager"),
        ([httpx2.Response(503, json={"message": "busy", "code": "DATABASE_RELATED_ERROR"})], "refuses"),
    ],
)
async def test_nobody_and_others_are_wrong(wire: "Wire", answers: list[httpx2.Response | Exception], text: str) -> None:
    """Whoever answers otherwise, or not at all, is named with what to do."""
    wire.will_answer(*answers)
    found = await manager.look(wire.client)
    assert found.level is Level.WRONG
    assert found.text.startswith(("http://manager", "the manager at http://manager"))
    assert text in found.text
    assert found.remedy


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with one setting of its own, in a package whose name no other test has."""
    for name in WorkerSettings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    package = tmp_path / "src" / tmp_path.name
    package.mkdir(parents=True)
    (package / "settings.py").write_text(
        "from jobnik_sdk.settings import WorkerSettings\n\n\nclass Settings(WorkerSettings):\n    quality: int = 85\n"
    )
    names = [name.upper() for name in (*WorkerSettings.model_fields, "quality")]
    (tmp_path / ".env.example").write_text("".join(f"{name}=\n" for name in names))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(package.parent), *sys.path])
    return Project(tmp_path, tmp_path.name)


def test_settings_that_can_be_made_are_well(worker: Project) -> None:
    """Those of .env count."""
    (worker.root / ".env").write_text("JOBNIK_BASE_URL=http://manager\n")
    assert list(settings.check(worker)) == [well("everything is set, and listed in .env.example")]


def test_each_wrong_setting_is_named(worker: Project) -> None:
    """Missing, wrong, misspelled and unlisted ones, each with what to do."""
    (worker.root / ".env").write_text("QUALITY=high\nWORKER_CONCURENCY=3\n")
    (worker.root / ".env.example").write_text("JOBNIK_BASE_URL=\n")
    found = list(settings.check(worker))
    assert [finding.text.split(":")[0] for finding in found[:3]] == [
        "JOBNIK_BASE_URL is not set",
        "QUALITY",
        "WORKER_CONCURENCY is set, but is no setting",
    ]
    assert found[2].remedy == "is WORKER_CONCURRENCY meant?"
    assert found[3].text.endswith(", QUALITY")
    assert all(finding.remedy for finding in found)


def test_settings_that_cannot_be_read_are_wrong(worker: Project) -> None:
    """Whatever the module raises is named; an example that was deleted is nobody's trouble."""
    (worker.root / ".env.example").unlink()
    (worker.root / "src" / worker.package / "settings.py").write_text("from nowhere import Settings\n")
    (found,) = settings.check(worker)
    assert found.level is Level.WRONG
    assert "settings.py cannot be read: ModuleNotFoundError: No module named 'nowhere'" in found.text


@pytest.fixture
def faults(tmp_path: Path) -> Callable[..., list[tuple[str, str]]]:
    """A function that holds files of values against a schema and returns what does not fit."""
    worker = {"type": "object", "properties": {"slots": {"type": "integer"}}, "required": ["slots"]}
    properties = {"worker": worker, "replicas": {"minimum": 0}}
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"type": "object", "properties": properties, "additionalProperties": False}))

    def faults(**texts: str) -> list[tuple[str, str]]:
        files = [tmp_path / f"{name}.yaml" for name in texts]
        for file, text in zip(files, texts.values(), strict=True):
            file.write_text(text)
        return list(chart_values.faults(schema, files[0], files[1:]))

    return faults


def test_values_lie_over_each_other(faults: Callable[..., list[tuple[str, str]]]) -> None:
    """What a file leaves out is that of the first, an empty file changes nothing, and null takes a value away."""
    assert faults(values="worker: {slots: 1}", prod="worker: {more: 2}", empty="", null="replicas: null") == []
    assert faults(values="worker: {slots: 1}", prod="worker: {slots: null}") == [
        ("prod.yaml", 'worker: "slots" is a required property')
    ]


def test_each_value_that_does_not_fit_is_named_once(faults: Callable[..., list[tuple[str, str]]]) -> None:
    """By its file, its place and the reason; what is wrong in the first file is not told of the next ones again."""
    assert faults(values="{worker: {slots: four}, replica: 1}", prod="replicas: -1", broken="a: [", other="[]") == [
        ("values.yaml", "Additional properties are not allowed ('replica' was unexpected)"),
        ("values.yaml", 'worker.slots: "four" is not of type "integer"'),
        ("prod.yaml", "replicas: -1 is less than the minimum of 0"),
        ("broken.yaml", "line 1: expected the node content, but found '<stream end>'"),
        ("other.yaml", '[] is not of type "object"'),
    ]
