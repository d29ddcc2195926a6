"""Every combination of answers renders clean, formatted files that their tools accept."""

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

# Braces that Grafana and GitHub interpret: labels in legends, and expressions in workflows.
FOREIGN_BRACES = {"helm/dashboard.json": r"\{\{\w+\}\}", ".github/workflows/ci.yml": r"\$\{\{ github\.[^{}]+ \}\}"}

# The longest valid answers, to check that no rendered line is too long for the formatter.
LONGEST = {
    "service_name": "w" * 40,
    "description": "It's #1: naïve & <fast>, 100 %! ".ljust(100, "d"),
    "stage_type": "s" * 50,
}

# All answers that the code depends on, each with short and with the longest names.
CODE = [
    {"handler_style": style, "example": example, **lengths}
    for style, example, lengths in product(CHOICES["handler_style"], CHOICES["example"], ({}, LONGEST))
]


def files_of(project: Path) -> dict[str, str]:
    """Return the text of all files of a project, by relative path."""
    return {str(path.relative_to(project)): path.read_text() for path in project.rglob("*") if path.is_file()}


def check(project: Path) -> None:
    """Check that the files of a project have clean text and valid syntax."""
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
    """Parse a data file."""
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
    """The rendered files are clean and contain exactly the requested features."""
    project = render(**answers)

    check(project)
    assert (project / "helm").exists() == (answers["deploy"] == "helm")
    assert ("helm" in (project / "Makefile").read_text()) == (answers["deploy"] == "helm")
    assert (project / ".github").exists() == (answers["ci"] == "github")
    assert (project / ".gitlab-ci.yml").exists() == (answers["ci"] == "gitlab")
    text = "".join(files_of(project).values()).lower()
    assert ("thumbnail_quality" in text) == ("pillow" in text) == ("httpx2" in text) == answers["example"]


@pytest.mark.parametrize("answers", CODE, ids=lambda answers: "-".join(map(str, answers.values()))[:20])
def test_the_code_passes_ruff(
    render: Callable[..., Path], tool: Callable[..., str], bin_dir: Path, answers: dict[str, str | bool]
) -> None:
    """The code is formatted and passes the linter for all answers, with short and with the longest names."""
    project = render(**answers)

    check(project)
    tool(bin_dir / "ruff", "check", "--no-cache", ".", cwd=project)
    tool(bin_dir / "ruff", "format", "--no-cache", "--diff", ".", cwd=project)


def test_env_example_lists_every_setting(render: Callable[..., Path]) -> None:
    """`.env.example` contains each setting of the SDK with its default, and JOBNIK_BASE_URL, which has none."""
    listed = dict(
        line.split("=", 1)
        for line in (render() / ".env.example").read_text().splitlines()
        if line and not line.startswith("#")
    )

    settings = {name.upper(): field for name, field in WorkerSettings.model_fields.items()}
    assert set(listed) - set(settings) == {"OTEL_SERVICE_NAME", "THUMBNAIL_QUALITY"}
    assert {name: listed[name] for name in settings if name != "JOBNIK_BASE_URL"} == {
        name: "" if field.default is None else str(field.default)
        for name, field in settings.items()
        if name != "JOBNIK_BASE_URL"
    }


@pytest.mark.parametrize("sdk_source", ["git", "index"])
def test_the_dockerfile_has_no_findings(
    render: Callable[..., Path], tool: Callable[..., str], bin_dir: Path, sdk_source: str
) -> None:
    """Hadolint finds no problem in the Dockerfile, without ignored rules."""
    project = render(sdk_source=sdk_source)

    assert "hadolint" not in (project / "Dockerfile").read_text()
    tool(bin_dir / "hadolint", "Dockerfile", cwd=project)


def test_the_commands_after_a_copy_can_be_pasted(
    thin_template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message after a copy contains valid commands, also if the folder needs quoting."""
    project = tmp_path / 'it\'s "a" $folder'
    copier.run_copy(str(thin_template), project, data={"service_name": "thumbnail-worker"}, defaults=True)

    commands = [line.strip() for line in capsys.readouterr().err.splitlines()]
    first = next(command for command in commands if command.startswith("cd "))
    assert shlex.split(first) == ["cd", str(project)]
    targets = {command.split()[1] for command in commands if command.startswith("make ")}
    assert targets <= set(re.findall(r"^([a-z]+):", (project / "Makefile").read_text(), re.MULTILINE))


def test_make_lists_the_targets(render: Callable[..., Path], tool: Callable[..., str]) -> None:
    """`make` without a target lists every target."""
    targets = ["help", "dev", "test", "lint", "image", "chart", "doctor", "update"]

    listed = tool("make", cwd=render())

    assert [line.split()[1] for line in listed.splitlines()] == targets


def test_uv_adds_dependencies_below_the_mark(render: Callable[..., Path], tool: Callable[..., str]) -> None:
    """`uv add` keeps the owner's dependencies apart from the dependencies that the template manages."""
    project = render()
    tool("uv", "add", "--quiet", "--frozen", "aaa", cwd=project)
    tool("uv", "add", "--quiet", "--frozen", "--dev", "nnn", cwd=project)

    below = [part.partition("]")[0] for part in (project / "pyproject.toml").read_text().split("# Yours, below")]

    assert '"aaa"' in below[1]
    assert '"nnn"' in below[2]


def test_file_names_are_valid_on_windows(render: Callable[..., Path]) -> None:
    """No name has a forbidden character, ends in a dot or space, is a device name, or is too long.

    Windows allows 260 characters, of which about 160 remain below the temporary folder that Copier uses.
    """
    for root in (ROOT / "template", render(**LONGEST)):
        for path in root.rglob("*"):
            assert not set('<>:"|?*\\') & set(path.name), path
            assert path.name == path.name.rstrip(". "), path
            assert not re.fullmatch(r"con|prn|aux|nul|(com|lpt)\d", path.name.split(".")[0].lower()), path
            assert len(str(path.relative_to(root))) <= 120, path
