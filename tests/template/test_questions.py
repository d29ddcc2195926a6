"""The questions of the template: their validation and defaults."""

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.template.environments import INSTALL_TIMEOUT
from tools.reserved_names import QUESTIONS as QUESTIONS_FILE
from tools.reserved_names import recorded_names, reserved_names, with_names

ROOT = Path(__file__).resolve().parents[2]
QUESTIONS: dict[str, Any] = yaml.safe_load(QUESTIONS_FILE.read_text())
ASKED = ["service_name", "description", "stage_type", "handler_style", "deploy", "ci", "example"]


def test_seven_questions_are_asked_and_one_is_required() -> None:
    """All questions have a help text, and all except the name have a default."""
    asked = {
        name: question
        for name, question in QUESTIONS.items()
        if not name.startswith("_") and question.get("when", True) and question.get("ask", True)
    }

    assert list(asked) == ASKED
    assert [name for name, question in asked.items() if "default" not in question] == ["service_name"]
    assert all(question["help"] for question in asked.values())


def test_the_template_needs_no_trust() -> None:
    """The template has no tasks, migrations or extensions, because update bots cannot grant trust."""
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
        ("service_name", "sniffio", "sniffio is reserved by .* such as sniffio-worker"),
        ("service_name", "python", "python is reserved"),
        ("service_name", "colorama", "colorama is reserved"),
        ("service_name", "better-exceptions", "better-exceptions is reserved"),
        ("service_name", "jobnik--sdk", "jobnik--sdk is reserved"),
        ("package_name", "another_worker", "The name of this project is another-worker"),
        ("description", "", "Use one line of 1 to 100 printable characters"),
        ("description", "two\nlines", "Use one line of 1 to 100 printable characters"),
        ("description", 'a "quote"', "Use one line of 1 to 100 printable characters"),
        ("description", "back\\slash", "Use one line of 1 to 100 printable characters"),
        ("description", "costs $5", "Use one line of 1 to 100 printable characters"),
        ("description", "{{ 7 * 7 }}", "Use one line of 1 to 100 printable characters"),
        ("description", " ", "Use one line of 1 to 100 printable characters"),
        ("description", "next\u0085line", "Use one line of 1 to 100 printable characters"),
        ("description", "line\u2028separator", "Use one line of 1 to 100 printable characters"),
        ("description", "\ufeffmark", "Use one line of 1 to 100 printable characters"),
        ("description", "d" * 101, "Use one line of 1 to 100 printable characters"),
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
def test_an_invalid_answer_is_refused(render: Callable[..., Path], question: str, answer: str, message: str) -> None:
    """An invalid answer is refused with a message that describes valid answers."""
    with pytest.raises((ValueError, TypeError), match=message) as refused:
        render(**{question: answer})
    assert "\n" not in str(refused.value).replace(answer, "")


def test_a_relative_path_to_the_template_is_refused(
    render: Callable[..., Path], template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path is refused, because Copier records it as typed and updates would not find it."""
    monkeypatch.chdir(template.parent)

    with pytest.raises(ValueError, match=f"path ./{template.name} is relative"):
        render(source=f"./{template.name}")


def test_a_template_without_history_is_refused(
    render: Callable[..., Path], template: Path, tmp_path: Path, tool: Callable[..., str]
) -> None:
    """A template outside a git repository is refused, because the SDK is installed from a commit."""
    tool("git", "worktree", "add", "--detach", tmp_path / "export", cwd=template)
    (tmp_path / "export" / ".git").unlink()

    with pytest.raises(ValueError, match=r"git cannot read .* log -1 to see why"):
        render(source=tmp_path / "export")


@pytest.mark.timeout(INSTALL_TIMEOUT)
def test_all_that_is_rendered_has_a_name_of_its_own(installed: Path) -> None:
    """A worker cannot have the name of a module, distribution or program that its environment has or may have.

    `make golden` writes the names in copier.yml. Another Python or system may not find all of them.
    """
    names = reserved_names(installed)
    if os.environ.get("GOLDEN") == "write":
        QUESTIONS_FILE.write_text(with_names(QUESTIONS_FILE.read_text(), names))

    assert set(names) <= set(recorded_names(QUESTIONS_FILE.read_text())), "run `make golden`"
    assert {"colorama", "python", "better-exceptions", "sniffio", "yaml", "jobnik-manager", "pytest", "type"} <= {
        *names
    }


@pytest.mark.parametrize("package", ["sdk", "devtools", "reference_manager"])
def test_the_template_pins_the_version_of_this_repository(package: str) -> None:
    """`jobnik_version` in copier.yml is the version of the SDK, the development tools and the manager."""
    project = tomllib.loads((ROOT / package / "pyproject.toml").read_text())["project"]

    assert QUESTIONS["jobnik_version"]["default"] == project["version"]
