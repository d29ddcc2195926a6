"""The questions: what they refuse, and what follows from the answers."""

import keyword
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.template.environments import INSTALLATION

ROOT = Path(__file__).resolve().parents[2]
QUESTIONS: dict[str, Any] = yaml.safe_load((ROOT / "copier.yml").read_text())
RESERVED = set(QUESTIONS["reserved_names"]["default"].split())
ASKED = ["service_name", "description", "stage_type", "handler_style", "deploy", "ci", "example"]


def test_seven_questions_are_asked_and_one_is_required() -> None:
    """Everything but the name has a default; everything asked is explained."""
    asked = {
        name: question
        for name, question in QUESTIONS.items()
        if not name.startswith("_") and question.get("when", True) and question.get("ask", True)
    }

    assert list(asked) == ASKED
    assert [name for name, question in asked.items() if "default" not in question] == ["service_name"]
    assert all(question["help"] for question in asked.values())


def test_nothing_in_the_template_needs_trust() -> None:
    """Update bots cannot give trust, so there are no tasks, migrations or extensions."""
    assert not {"_tasks", "_migrations", "_jinja_extensions"} & QUESTIONS.keys()


@pytest.mark.parametrize(
    ("question", "answer", "message"),
    [
        ("service_name", "", "Use 1 to 40 lower-case letters"),
        ("service_name", "Thumbnails", "Use 1 to 40 lower-case letters"),
        ("service_name", "1-worker", "Use 1 to 40 lower-case letters"),
        ("service_name", "worker-", "Use 1 to 40 lower-case letters"),
        ("service_name", "thumbnail_worker", "Use 1 to 40 lower-case letters"),
        ("service_name", "worker\n", "Use 1 to 40 lower-case letters"),
        ("service_name", "w" * 41, "Use 1 to 40 lower-case letters"),
        ("service_name", "queue", "queue is reserved by .* Choose another name, such as queue-worker"),
        ("service_name", "jobnik-sdk", "jobnik-sdk is reserved"),
        ("service_name", "con", "con is reserved"),
        ("description", "", "Use one line of 1 to 100 characters"),
        ("description", "two\nlines", "Use one line of 1 to 100 characters"),
        ("description", 'a "quote"', "Use one line of 1 to 100 characters"),
        ("description", "back\\slash", "Use one line of 1 to 100 characters"),
        ("description", "costs $5", "Use one line of 1 to 100 characters"),
        ("description", "{{ 7 * 7 }}", "Use one line of 1 to 100 characters"),
        ("description", "d" * 101, "Use one line of 1 to 100 characters"),
        ("stage_type", "", "Use 1 to 50 letters"),
        ("stage_type", "make thumbnails", "Use 1 to 50 letters"),
        ("stage_type", "a/b", "Use 1 to 50 letters"),
        ("stage_type", "s" * 51, "Use 1 to 50 letters"),
        ("handler_style", "fork", "Invalid choice"),
        ("deploy", "compose", "Invalid choice"),
        ("ci", "jenkins", "Invalid choice"),
        ("sdk_source", "conda", "Invalid choice"),
    ],
)
def test_a_bad_answer_is_refused(render: Callable[..., Path], question: str, answer: str, message: str) -> None:
    """Each bad answer is refused with a message that says what to give instead, and nothing is written."""
    with pytest.raises((ValueError, TypeError), match=message):
        render(**{question: answer})


def test_a_relative_path_to_the_template_is_refused(
    render: Callable[..., Path], template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copier records the path as typed, and no update would find a relative one again."""
    monkeypatch.chdir(template.parent)

    with pytest.raises(ValueError, match=f"path ./{template.name} is relative"):
        render(source=f"./{template.name}")


def test_a_template_without_history_is_refused(
    render: Callable[..., Path], template: Path, tmp_path: Path, tool: Callable[..., str]
) -> None:
    """Where the template is no repository there is no commit to take the SDK from."""
    tool("git", "worktree", "add", "--detach", tmp_path / "export", cwd=template)
    (tmp_path / "export" / ".git").unlink()

    with pytest.raises(ValueError, match="not a git repository"):
        render(source=tmp_path / "export")


def test_names_that_python_has_taken_are_reserved() -> None:
    """Every keyword and every module of the standard library that would pass as a name is in the list."""
    taken = {name for name in {*sys.stdlib_module_names, *keyword.kwlist, *keyword.softkwlist} if name.isalnum()}

    assert {name for name in taken if name == name.lower()} <= RESERVED


@pytest.mark.timeout(INSTALLATION)
def test_names_that_a_worker_installs_are_reserved(installed: Path, tool: Callable[..., str]) -> None:
    """No worker is called like a distribution or a module in its own environment."""
    listing = """if True:
        from importlib.metadata import distributions, packages_distributions
        print(*(distribution.name for distribution in distributions()), *packages_distributions())
    """
    names = tool(installed / ".venv" / "bin" / "python", "-c", listing, cwd=installed).lower().split()
    installed_beside = {re.sub("[-_.]+", "-", name) for name in names} - {"thumbnail-worker"}

    assert {name for name in installed_beside if name[0].isalpha()} <= RESERVED


@pytest.mark.parametrize("package", ["sdk", "devtools", "reference_manager"])
def test_the_template_pins_the_version_that_lies_beside_it(package: str) -> None:
    """The version of SDK, devtools and manager, which the template must know while it renders, is theirs."""
    project = tomllib.loads((ROOT / package / "pyproject.toml").read_text())["project"]

    assert QUESTIONS["jobnik_version"]["default"] == project["version"]
