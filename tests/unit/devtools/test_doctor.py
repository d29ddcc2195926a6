"""The doctor of a rendered worker: its checks, and how findings are printed."""

import json
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock

import httpx2
import pytest
import yaml
from jobnik_devtools.doctor import chart, chart_values, manager, settings
from jobnik_devtools.doctor.__main__ import run_check
from jobnik_devtools.doctor.findings import CannotCheckError, Finding, Level, format_check, note, ok, problem, summary
from jobnik_devtools.doctor.ownership import is_owned, with_own_parts
from jobnik_devtools.doctor.project import Project, failure_cause
from jobnik_devtools.doctor.template import Template, parse_answers, revision
from jobnik_sdk import JobnikClient, WorkerSettings

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


def test_names_and_remedies_are_not_repeated() -> None:
    """The name of a check is printed once, and so is the remedy for several findings in a row."""
    findings = [problem("one", "mend it"), problem("two", "mend it"), note("three", "or not")]
    assert list(format_check("lock", findings, terminal=False)) == [
        "  ✗ lock       one",
        "  ✗            two",
        "               → mend it",
        "  !            three",
        "               → or not",
    ]


def test_lines_are_wrapped_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, signs are coloured, and lines are wrapped between words and indented."""
    monkeypatch.setenv("COLUMNS", "40")
    finding = problem("a text that is longer than the line", "and-a-command --that-stays whole")
    assert list(format_check("lock", [finding], terminal=True)) == [
        "  \33[31m✗\33[0m lock       a text that is longer",
        "               than the line",
        "               → and-a-command",
        "                 --that-stays whole",
    ]


def test_last_line_counts_the_findings() -> None:
    """It has the numbers of problems, notes and checks that could not be made."""
    unchecked = Finding(Level.NOT_CHECKED, "x")
    assert summary([ok("fine")]) == "No problems found."
    assert summary([ok("fine"), unchecked]) == "No problems found, 1 not checked."
    assert summary([ok("fine"), note("x", "y"), problem("x", "y"), problem("x", "y")]) == "2 problems, 1 note."
    assert (
        summary([problem("x", "y"), note("x", "y"), note("x", "y"), unchecked]) == "1 problem, 2 notes, 1 not checked."
    )


def test_check_that_cannot_be_completed_says_why() -> None:
    """Its earlier findings are kept, and the reason follows them."""

    def check(_: Project) -> Iterator[Finding]:
        yield ok("one part is fine")
        raise CannotCheckError("no connection", "connect")

    assert run_check(check, Project(Path(), "package")) == [
        ok("one part is fine"),
        Finding(Level.NOT_CHECKED, "not checked: no connection", "connect"),
    ]


@pytest.mark.parametrize(
    ("name", "owned"),
    [
        ("src/thumbnail_worker/handlers.py", True),
        ("src/thumbnail_worker/__main__.py", False),
        ("tests/unit/test_handlers.py", True),
        ("helm/values.yaml", True),
        ("helm/values.schema.json", False),
        ("Makefile", False),
    ],
)
def test_some_files_belong_to_the_owner(name: str, owned: bool) -> None:  # noqa: FBT001 pytest passes it by name
    """A difference in such a file is not reported."""
    assert is_owned(name) == owned


def test_owners_parts_of_pyproject_are_kept() -> None:
    """Dependencies below the marker, the version, and further tables are kept; other lines are restored."""
    own = PYPROJECT.replace('"pillow>=13.0"', '"tifffile>=2025"').replace('version = "0.1.0"', 'version = "2.0.0"')
    own += "\n[tool.mypy]\nstrict = true\n"
    assert with_own_parts("pyproject.toml", PYPROJECT, own) == own
    edited = own.replace("line-length = 120", "line-length = 80").replace('  "jobnik-sdk==0.1.0",\n', "")
    assert with_own_parts("pyproject.toml", PYPROJECT, edited) == own


def test_versions_of_the_chart_are_kept() -> None:
    """A release of the worker changes them; everything else in Chart.yaml is restored."""
    rendered = 'name: w\nversion: 0.1.0\nappVersion: "0.1.0"\nkubeVersion: ">=1.27.0-0"\n'
    released = rendered.replace("0.1.0", "0.2.0")
    assert with_own_parts("helm/Chart.yaml", rendered, released) == released
    assert with_own_parts("helm/Chart.yaml", rendered, released.replace("1.27", "1.20")) == released


@pytest.mark.parametrize("gap", ["", "\n"])
def test_lines_below_the_marker_are_kept(gap: str) -> None:
    """In every file of the template; lines that were added elsewhere are removed."""
    rendered = "FROM python\n\n# Yours, below this line: packages.\n\nCOPY /app\n"
    own = rendered.replace("packages.\n", f"packages.\n{gap}RUN apt-get install gdal\n")
    assert with_own_parts("Dockerfile", rendered, own) == own
    assert with_own_parts("Dockerfile", rendered, own + "USER root\n") == own


@pytest.mark.parametrize("address", ["git+https://example.com/jobnik.git", '/it\'s "here": #1', f"/{'a folder/' * 20}"])
def test_answers_record_the_template(worker: Project, address: str) -> None:
    """The address and the version are read as Copier writes them, and as older versions of the template wrote them."""
    for text in (
        yaml.safe_dump({"_commit": "1234567", "_src_path": address, "ci": "github"}),
        f'# A comment\n_commit: "1234567"\n_src_path: {json.dumps(address)}\nci: "github"\n',
    ):
        (worker.root / ".copier-answers.yml").write_text(text)
        template = Template(worker)
        assert (template.version, template.address) == ("1234567", address)


@pytest.mark.parametrize("text", ["", "a: [", "- one\n", "<<<<<<< before updating\n_commit: a\n=======\n"])
def test_answers_that_are_not_yaml_are_refused(text: str) -> None:
    """The error names the file and a remedy."""
    with pytest.raises(CannotCheckError, match=r"\.copier-answers\.yml") as refused:
        parse_answers(text)
    assert refused.value.remedy == "run git restore .copier-answers.yml"


@pytest.mark.parametrize(("version", "known"), [("v0.1.0", "v0.1.0"), ("v0.1.0-3-g0a1b2c3", "0a1b2c3")])
def test_version_after_a_tag_is_its_commit(version: str, known: str) -> None:
    """Git can fetch tags and commits only."""
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
        ("", "exit code 3"),
    ],
)
def test_cause_of_a_failure_is_found(stderr: str, cause: str) -> None:
    """In the output of uv, Copier, git and helm."""
    assert failure_cause(subprocess.CompletedProcess([], 3, "", stderr)) == cause


async def _check_manager(*answers: httpx2.Response | Exception) -> Finding:
    """Check a manager that gives these answers, one after the other."""
    remaining = deque(answers)

    def answer(_request: httpx2.Request) -> httpx2.Response:
        given = remaining.popleft()
        if isinstance(given, Exception):
            raise given
        return given

    async with JobnikClient("http://manager", transport=httpx2.MockTransport(answer)) as client:
        finding = await manager.check_manager(client)
    assert not remaining, "not every answer was used"
    return finding


async def test_manager_that_answers_is_ok() -> None:
    """The finding has the version of the manager."""
    answer = httpx2.Response(200, json={"protocol": "1", "version": "0.1.0", "features": []})
    assert await _check_manager(answer) == ok("http://manager answers, version 0.1.0")


async def test_other_version_of_the_protocol_is_a_problem() -> None:
    """The finding has both versions."""
    found = await _check_manager(httpx2.Response(200, json={"protocol": "2", "version": "9.0.0", "features": []}))
    assert found.level is Level.PROBLEM
    assert "version 2 of the protocol, this worker version 1" in found.text


async def test_manager_of_part_a_is_a_note() -> None:
    """A manager without capabilities is recognised by its answer about a job that does not exist."""
    answers = [httpx2.Response(404, json={"message": "", "code": code}) for code in ("NOT_FOUND", "JOB_NOT_FOUND")]
    found = await _check_manager(*answers)
    assert found.level is Level.NOTE
    assert "part A" in found.text


@pytest.mark.parametrize(
    ("answers", "text"),
    [
        ([httpx2.ConnectError("no route")], "does not answer: no route."),
        ([httpx2.Response(404, text="<html>"), httpx2.Response(404, text="<html>")], "is not a Jobnik manager"),
        ([httpx2.Response(404, text="<html>"), httpx2.Response(200, text="<html>")], "is not a Jobnik manager"),
        ([httpx2.Response(200, text="<html>")], "is not a Jobnik manager"),
        ([httpx2.Response(503, json={"message": "busy", "code": "DATABASE_RELATED_ERROR"})], "refuses"),
    ],
)
async def test_no_manager_is_a_problem(answers: list[httpx2.Response | Exception], text: str) -> None:
    """The finding has the address, what is wrong there, and a remedy."""
    found = await _check_manager(*answers)
    assert found.level is Level.PROBLEM
    assert found.text.startswith(("http://manager", "the manager at http://manager"))
    assert text in found.text
    assert found.remedy


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with one setting of its own, in a package with a name that no other test uses."""
    for name in WorkerSettings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    package = tmp_path / "src" / tmp_path.name
    package.mkdir(parents=True)
    (package / "settings.py").write_text(
        "from jobnik_sdk import WorkerSettings\n\n\nclass Settings(WorkerSettings):\n    quality: int = 85\n"
    )
    names = [name.upper() for name in (*WorkerSettings.model_fields, "quality")]
    (tmp_path / ".env.example").write_text("".join(f"{name}=\n" for name in names))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(package.parent), *sys.path])
    return Project(tmp_path, tmp_path.name)


def test_valid_settings_are_ok(worker: Project) -> None:
    """Settings in .env are read."""
    (worker.root / ".env").write_text("JOBNIK_BASE_URL=http://manager\n")
    assert list(settings.check(worker)) == [ok("all settings are valid, and listed in .env.example")]


def test_each_setting_with_a_problem_is_named(worker: Project) -> None:
    """Missing, invalid, misspelled and unlisted settings, each with a remedy."""
    (worker.root / ".env").write_text("JOBNIK_BASE_URI=http://m\nQUALITY=high\nWORKER_CONCURENCY=3\n")
    (worker.root / ".env.example").write_text("JOBNIK_BASE_URL=\n")
    found = list(settings.check(worker))
    assert [finding.text.split(":")[0] for finding in found[:4]] == [
        "JOBNIK_BASE_URL is not set, but JOBNIK_BASE_URI is",
        "QUALITY",
        "JOBNIK_BASE_URI is set, but there is no such setting",
        "WORKER_CONCURENCY is set, but there is no such setting",
    ]
    assert found[3].remedy == "did you mean WORKER_CONCURRENCY?"
    assert found[4].text.endswith(", QUALITY")
    assert all(finding.remedy for finding in found)


def test_a_missing_address_is_no_problem(worker: Project) -> None:
    """`make dev` and `make test` set the address, and a new project has none."""
    assert list(settings.check(worker)) == [ok("all settings are valid, and listed in .env.example")]
    text = "not checked: JOBNIK_BASE_URL is not set"
    remedy = "set it to check a manager; make dev starts one"
    assert run_check(manager.check, worker) == [Finding(Level.NOT_CHECKED, text, remedy)]


def test_an_unreadable_file_is_a_problem_of_the_settings_alone(worker: Project) -> None:
    """The manager's address may be in it, so the manager cannot be checked."""
    (worker.root / ".env").write_bytes("JOBNIK_BASE_URL=http://é".encode("latin-1"))
    text = ".env: it is not text in UTF-8."
    assert [finding.text for finding in settings.check(worker)] == [text]
    assert [finding.text for finding in run_check(manager.check, worker)] == [f"not checked: {text}"]


@pytest.mark.parametrize("address", ["http://u:s3cret@h:99999", "http://u:s3cret@127.0.0.1:9"])
def test_the_password_of_an_address_is_not_printed(worker: Project, address: str) -> None:
    """This holds for valid and invalid addresses."""
    (worker.root / ".env").write_text(f"JOBNIK_BASE_URL={address}\n")
    found = [*settings.check(worker), *run_check(manager.check, worker)]
    assert found
    assert not any("s3cret" in finding.text + finding.remedy for finding in found)


def test_settings_that_cannot_be_imported_are_a_problem(worker: Project) -> None:
    """The finding has the exception of the module; a deleted example is not a problem."""
    (worker.root / ".env.example").unlink()
    (worker.root / "src" / worker.package / "settings.py").write_text("from nowhere import Settings\n")
    (found,) = settings.check(worker)
    assert found.level is Level.PROBLEM
    assert "settings.py cannot be imported: ModuleNotFoundError: No module named 'nowhere'" in found.text


CONTAINER = """\
from dependency_injector import containers, providers
from jobnik_sdk import Handler, StageType, Worker
from pydantic import BaseModel

def open_resource():
    raise AssertionError("the doctor does not open resources")

class Container(containers.DeclarativeContainer):
    first = providers.Singleton(Handler, StageType("count", task=BaseModel), providers.Resource(open_resource))
    second = providers.Factory(Handler, stage_type=StageType("report", task=BaseModel), function=first)
    handlers = providers.List(first, {second})
    worker = providers.Singleton(Worker.from_settings, providers.Singleton(open_resource), handlers)
"""


@pytest.fixture
def chart_findings(worker: Project, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Finding]]:
    """A function that writes a container and files of values, which are valid, and returns the chart's findings."""

    def findings(container: str, **texts: str) -> list[Finding]:
        (worker.root / "src" / worker.package / "container.py").write_text(container)
        (worker.root / "helm").mkdir()
        for name, text in texts.items():
            (worker.root / "helm" / f"{name}.yaml").write_text(text)
        valid = subprocess.CompletedProcess[str]([], 0, stdout="[]")
        monkeypatch.setattr(Project, "uv", Mock(return_value=valid))
        monkeypatch.setenv("PATH", "")  # without helm
        ok_values, *others = run_check(chart.check, worker)
        assert ok_values.level is Level.OK
        return others

    return findings


def test_stage_types_of_the_chart_are_those_of_the_handlers(chart_findings: Callable[..., list[Finding]]) -> None:
    """Each values file that sets them lists each stage type, and no other. Nothing of the container is opened."""
    assert chart_findings(
        CONTAINER.format(second="second"),
        values="stageTypes: [count, more]",
        values_empty="",
        values_prod="stageTypes: [report, count]",
        values_test="stageTypes: null",
        values_other="stageTypes: [further, more]",
    ) == [
        problem(
            "helm/values.yaml: stageTypes does not list report, which the worker handles",
            "add it; the scaler, the alerts and the dashboard watch only the stage types that are listed",
        ),
        note(
            "helm/values.yaml: stageTypes lists more, for which the worker has no handler",
            "remove it, or list its handler in container.py",
        ),
        problem(
            "helm/values_other.yaml: stageTypes does not list count, report, which the worker handles",
            "add them; the scaler, the alerts and the dashboard watch only the stage types that are listed",
        ),
        note(
            "helm/values_other.yaml: stageTypes lists further, more, for which the worker has no handler",
            "remove them, or list their handlers in container.py",
        ),
    ]


@pytest.mark.parametrize(
    ("container", "why"),
    [
        (
            CONTAINER.format(second="providers.Callable(open_resource)"),
            "does not list a provider of a Handler for each one",
        ),
        (
            "class Container: pass\n",
            "cannot be read: AttributeError: type object 'Container' has no attribute 'worker'",
        ),
        ("raise ValueError(3)\n", "cannot be read: ValueError: 3"),
    ],
    ids=["other-providers", "own-class", "broken"],
)
def test_stage_types_of_other_containers_are_not_checked(
    chart_findings: Callable[..., list[Finding]], container: str, why: str
) -> None:
    """The reason is said, and the check of the values is still made."""
    (found,) = chart_findings(container, values="stageTypes: [count]")
    text = f"not checked: stageTypes cannot be compared with the handlers, because container.py {why}"
    assert found == Finding(Level.NOT_CHECKED, text)


@pytest.fixture
def errors(tmp_path: Path) -> Callable[..., list[tuple[str, str]]]:
    """A function that validates files of values against a schema, and returns the errors."""
    worker = {"type": "object", "properties": {"slots": {"type": "integer"}}, "required": ["slots"]}
    properties = {"worker": worker, "replicas": {"minimum": 0}}
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"type": "object", "properties": properties, "additionalProperties": False}))

    def errors(**texts: str) -> list[tuple[str, str]]:
        files = [tmp_path / f"{name}.yaml" for name in texts]
        for file, text in zip(files, texts.values(), strict=True):
            file.write_text(text)
        return list(chart_values.errors(schema, files[0], files[1:]))

    return errors


def test_values_are_merged_as_helm_does(errors: Callable[..., list[tuple[str, str]]]) -> None:
    """A value that a file leaves out comes from the first file, an empty file changes nothing, null removes a value."""
    assert errors(values="worker: {slots: 1}", prod="worker: {more: 2}", empty="", null="replicas: null") == []
    assert errors(values="worker: {slots: 1}", prod="worker: {slots: null}") == [
        ("prod.yaml", 'worker: "slots" is a required property')
    ]


def test_each_invalid_value_is_named_once(errors: Callable[..., list[tuple[str, str]]]) -> None:
    """With its file, its location and the reason; an error of the first file is not repeated for the others."""
    assert errors(values="{worker: {slots: four}, replica: 1}", prod="replicas: -1", broken="a: [", other="[]") == [
        ("values.yaml", "Additional properties are not allowed ('replica' was unexpected)"),
        ("values.yaml", 'worker.slots: "four" is not of type "integer"'),
        ("prod.yaml", "replicas: -1 is less than the minimum of 0"),
        ("broken.yaml", "line 1: expected the node content, but found '<stream end>'"),
        ("other.yaml", '[] is not of type "object"'),
    ]
