"""What every combination of answers renders: clean files, already formatted, that their tools accept."""

import json
import re
import shlex
import tomllib
from collections.abc import Callable
from itertools import product
from pathlib import Path

import copier
import pytest
import yaml
from jobnik_sdk import WorkerSettings

ROOT = Path(__file__).resolve().parents[2]
CHOICES: dict[str, tuple[str | bool, ...]] = {
    "handler_style": ("async", "thread", "process"),
    "deploy": ("helm", "none"),
    "ci": ("github", "gitlab", "none"),
    "example": (True, False),
}
COMBINATIONS = [dict(zip(CHOICES, answers, strict=True)) for answers in product(*CHOICES.values())]
MOST_FILES = 39

# Braces that others are to render: Grafana the labels in legends, GitHub what it knows of a run.
FOREIGN_BRACES = {"helm/dashboard.json": r"\{\{\w+\}\}", ".github/workflows/ci.yml": r"\$\{\{ github\.[^{}]+ \}\}"}

# As long as answers may be, so that no line of a rendered file gets too long for its formatter.
LONGEST = {
    "service_name": "w" * 40,
    "description": "It's #1: naïve & <fast>, 100 %! ".ljust(100, "d"),
    "stage_type": "s" * 50,
}

# The answers that the code depends on, with names of usual and of the greatest length.
CODE = [
    {"handler_style": style, "example": example, **lengths}
    for style, example, lengths in product(CHOICES["handler_style"], CHOICES["example"], ({}, LONGEST))
]


def files_of(project: Path) -> dict[str, str]:
    """Read all files of a project, by their path within it."""
    return {str(path.relative_to(project)): path.read_text() for path in project.rglob("*") if path.is_file()}


def check(project: Path) -> None:
    """Check the project's files as text and as data."""
    files = files_of(project)
    assert len(files) <= MOST_FILES
    for name, text in files.items():
        assert text.endswith("\n")
        assert not text.endswith("\n\n"), f"{name} ends with an empty line"
        plain = re.sub(FOREIGN_BRACES.get(name, r"\Z"), "", text)
        if not name.startswith("helm/templates/"):
            assert not any(braces in plain for braces in ("{{", "{%", "{#")), f"{name} has unrendered braces"
            check_syntax(name, text)


def check_syntax(name: str, text: str) -> None:
    """Parse a file that is data."""
    match Path(name).suffix:
        case ".toml":
            tomllib.loads(text)
        case ".json":
            json.loads(text)
        case ".yml" | ".yaml":
            yaml.safe_load(text)
        case _:
            pass


@pytest.mark.parametrize("answers", COMBINATIONS, ids=lambda answers: "-".join(map(str, answers.values())))
def test_every_combination_is_clean(render: Callable[..., Path], answers: dict[str, str | bool]) -> None:
    """Whatever is answered, the files hold what was asked for and nothing else."""
    project = render(**answers)

    check(project)
    assert (project / "helm").exists() == (answers["deploy"] == "helm")
    assert ("helm" in (project / "Makefile").read_text()) == (answers["deploy"] == "helm")
    assert (project / ".github").exists() == (answers["ci"] == "github")
    assert (project / ".gitlab-ci.yml").exists() == (answers["ci"] == "gitlab")
    words = "".join(files_of(project).values()).lower()
    assert ("thumbnail_quality" in words) == ("pillow" in words) == answers["example"]


@pytest.mark.parametrize("answers", CODE, ids=lambda answers: "-".join(map(str, answers.values()))[:20])
def test_the_code_needs_no_touch(
    render: Callable[..., Path], tool: Callable[..., str], own: Path, answers: dict[str, str | bool]
) -> None:
    """The answers that the code depends on leave it formatted and without findings, be they short or the longest."""
    project = render(**answers)

    check(project)
    tool(own / "ruff", "check", "--no-cache", ".", cwd=project)
    tool(own / "ruff", "format", "--no-cache", "--diff", ".", cwd=project)


def test_every_setting_is_in_the_example(render: Callable[..., Path]) -> None:
    """`.env.example` has each setting of the SDK with its default, and the one that has none."""
    said = dict(
        line.split("=", 1)
        for line in (render() / ".env.example").read_text().splitlines()
        if line and not line.startswith("#")
    )

    settings = {name.upper(): field for name, field in WorkerSettings.model_fields.items()}
    assert set(said) - set(settings) == {"OTEL_SERVICE_NAME", "THUMBNAIL_QUALITY"}
    assert {name: said[name] for name in settings if name != "JOBNIK_BASE_URL"} == {
        name: "" if field.default is None else str(field.default)
        for name, field in settings.items()
        if name != "JOBNIK_BASE_URL"
    }


@pytest.mark.parametrize("sdk_source", ["git", "index"])
def test_the_dockerfile_has_no_findings(
    render: Callable[..., Path], tool: Callable[..., str], own: Path, sdk_source: str
) -> None:
    """Hadolint accepts the Dockerfile as it is, with nothing ignored."""
    project = render(sdk_source=sdk_source)

    assert "hadolint" not in (project / "Dockerfile").read_text()
    tool(own / "hadolint", "Dockerfile", cwd=project)


def test_what_comes_next_can_be_pasted(thin_template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The message after a copy leads into the project, whatever its folder is called."""
    project = tmp_path / 'it\'s "a" $folder'
    copier.run_copy(str(thin_template), project, data={"service_name": "thumbnail-worker"}, defaults=True)

    commands = [line.strip() for line in capsys.readouterr().err.splitlines()]
    first = next(command for command in commands if command.startswith("cd "))
    assert shlex.split(first) == ["cd", str(project)]
    words = {command.split()[1] for command in commands if command.startswith("make ")}
    assert words <= set(re.findall(r"^([a-z]+):", (project / "Makefile").read_text(), re.MULTILINE))


def test_make_alone_lists_the_words(render: Callable[..., Path], tool: Callable[..., str]) -> None:
    """A newcomer who types `make` sees every word, and `chart` only where there is a chart."""
    words = ["help", "dev", "test", "lint", "image", "chart", "doctor", "update"]

    listed = tool("make", cwd=render())

    assert [line.split()[1] for line in listed.splitlines()] == words


def test_what_uv_adds_goes_below_the_mark(render: Callable[..., Path], tool: Callable[..., str]) -> None:
    """Dependencies of the owner never come to stand among those that the template moves."""
    project = render()
    tool("uv", "add", "--quiet", "--frozen", "aaa", cwd=project)
    tool("uv", "add", "--quiet", "--frozen", "--dev", "nnn", cwd=project)

    below = [part.partition("]")[0] for part in (project / "pyproject.toml").read_text().split("# Yours, below")]

    assert '"aaa"' in below[1]
    assert '"nnn"' in below[2]


def test_file_names_fit_for_windows(render: Callable[..., Path]) -> None:
    """No name has a character that Windows forbids, nor a dot or a space at its end, nor is a device's, nor too long.

    Below a folder of temporary files, where Copier works, 260 characters leave about 160.
    """
    for root in (ROOT / "template", render(**LONGEST)):
        for path in root.rglob("*"):
            assert not set('<>:"|?*\\') & set(path.name), path
            assert path.name == path.name.rstrip(". "), path
            assert not re.fullmatch(r"con|prn|aux|nul|(com|lpt)\d", path.name.split(".")[0].lower()), path
            assert len(str(path.relative_to(root))) <= 120, path
