"""Rendered projects, installed and run: their tests with a real manager, their lint and types."""

import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from textwrap import indent

import pytest

from tests.template.environments import INSTALL_TIMEOUT, clean_environment
from tests.template.quick_copier import doctor_command
from tests.template.versions import commit

Tool = Callable[..., str]

QUICKSTART = Path(__file__).resolve().parents[2] / "docs" / "quickstart.md"


def commands_after(project: Path, text: str) -> list[str]:
    """Return the lines of the first block of commands after a text in the project's README."""
    block = (project / "README.md").read_text().split(text)[1].split("\n\n")[1]
    return [line.strip() for line in block.splitlines()]


@pytest.mark.timeout(INSTALL_TIMEOUT)
def test_a_new_project_passes_lint_and_tests(installed: Path, tool: Tool) -> None:
    """`make lint` and `make test` pass, with a real manager and strict types."""
    tool("make", "lint", cwd=installed)
    assert " passed" in tool("make", "test", cwd=installed)


@pytest.mark.timeout(INSTALL_TIMEOUT)
def test_the_doctor_finds_no_problem_in_a_new_project(installed: Path, tool: Tool, jobnik_manager: str) -> None:
    """`make doctor` reports no problem in a new project, nor does the doctor without a manager."""
    output = tool("make", "doctor", cwd=installed, JOBNIK_BASE_URL=jobnik_manager)
    newborn = tool(*doctor_command(), "thumbnail_worker", cwd=installed, PYTHONPATH=str(installed / "src"))

    assert "? manager    not checked: JOBNIK_BASE_URL is not set\n" in newborn
    assert newborn.endswith("\n\nNo problems found, 1 not checked.\n")
    assert "✓ template   the project matches the template at" in output
    assert output.endswith("\n\nNo problems found.\n")
    assert not {"!", "?", "✗"} & {line.strip()[:1] for line in output.splitlines()}


@pytest.mark.timeout(INSTALL_TIMEOUT)
def test_make_image_uses_locked_dependencies(installed: Path, tool: Tool) -> None:
    """`make image` creates a missing lock file, builds with any image builder, and needs no uv if the lock exists."""
    lock = installed / "uv.lock"
    locked = lock.read_text()
    lock.unlink()

    output = tool("make", "image", "DOCKER=echo", "IMAGE_OPTIONS=--pull", cwd=installed)

    assert output.endswith("build --tag thumbnail-worker:dev --pull .\n")
    assert lock.read_text() == locked
    tool("make", "image", "DOCKER=echo", "UV=false", cwd=installed)


def test_make_chart_checks_all_values_files(render: Callable[..., Path], tool: Tool, helm: Path) -> None:
    """`make chart` checks each values file and fails if one is invalid."""
    project, path = render(), f"{helm.parent}{os.pathsep}{os.environ['PATH']}"
    production = project / "helm" / "values-production.yaml"
    production.write_text("replicas: 3\n")
    tool("make", "chart", cwd=project, PATH=path)
    production.write_text("replica: 3\n")

    with pytest.raises(AssertionError, match="'replica'"):
        tool("make", "chart", cwd=project, PATH=path)


@pytest.mark.timeout(INSTALL_TIMEOUT)
def test_the_quickstart_works_as_written(
    render: Callable[..., Path], installed: Path, tool: Tool, jobnik_manager: str
) -> None:
    """The worker of the quickstart passes its types and tests, and its first job prints the documented lines."""
    page = QUICKSTART.read_text()
    result, handler, test, seed_code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    project = render(service_name="word-counter", example=False)
    for file, begin, end, new in (
        ("src/word_counter/definitions.py", "class WorkResult", "\n\n\n", result),
        ("src/word_counter/handlers.py", "async def handle", "", handler),
        ("tests/unit/test_handlers.py", "async def test_", "", test),
    ):
        path = project / file
        before, _, after = path.read_text().partition(begin)
        path.write_text(before + new + (end + after.partition(end)[2] if end else ""))
    python = installed / ".venv" / "bin" / "python"
    found = {"PYTHONPATH": str(project / "src")}

    tool(installed / ".venv" / "bin" / "pyright", "--pythonpath", python, cwd=project)
    number = {"three": 3}[page.split("environment and runs ")[1].split()[0]]
    assert f"{number} passed" in tool(python, "-m", "pytest", cwd=project, **found)
    environment = found | {"JOBNIK_BASE_URL": jobnik_manager, "PROBE_PORT": "0"}
    with subprocess.Popen([python, "-m", "word_counter"], cwd=project, env=os.environ | environment) as worker:
        try:
            output = tool(python, "seed.py", cwd=project, **environment)
        finally:
            worker.terminate()
    assert worker.returncode == 0
    expected = re.findall(r"^    seed    \| (.*\n)", page, re.MULTILINE)
    assert output.endswith("".join(expected))
    assert indent(seed_code, "    ") in (project / "seed.py").read_text()


@pytest.mark.timeout(INSTALL_TIMEOUT)
def test_the_worker_runs_by_itself_as_the_readme_says(installed: Path, tool: Tool, jobnik_manager: str) -> None:
    """The command of the README runs the worker alone, and it completes the job of the seed."""
    command = commands_after(installed, "To run the worker by itself")[-1].partition("=")[2].split()[1:]
    environment = {"JOBNIK_BASE_URL": jobnik_manager, "PROBE_PORT": "0"}
    with subprocess.Popen(command, cwd=installed, env=clean_environment() | environment) as worker:
        try:
            assert "COMPLETED" in tool("uv", "run", "python", "seed.py", cwd=installed, **environment)
        finally:
            worker.terminate()
    assert worker.returncode == 0


@pytest.mark.matrix
@pytest.mark.timeout(600)
def test_pip_alone_installs_a_worker_as_the_readme_says(
    render: Callable[..., Path], template: Path, tool: Tool
) -> None:
    """The three commands of the README install the worker with its SDK, without uv on PATH."""
    project = render(template)
    commands = commands_after(project, "To install the worker with pip alone")
    folders = [folder for folder in os.environ["PATH"].split(os.pathsep) if not (Path(folder) / "uv").exists()]

    assert len(commands) == 3
    for command in commands:
        tool("sh", "-c", command, cwd=project, PATH=os.pathsep.join(folders))

    tool(project / ".venv" / "bin" / "python", "-c", "import thumbnail_worker.container", cwd=project.parent)


@pytest.mark.timeout(INSTALL_TIMEOUT)
def test_a_producer_shares_the_definitions_as_the_guide_says(installed: Path, tmp_path: Path, tool: Tool) -> None:
    """A producer in another repository depends on the worker's repository and imports its types."""
    worker, producer = tmp_path / "thumbnail-worker.git", tmp_path / "producer"
    shutil.copytree(installed, worker, ignore=shutil.ignore_patterns(".venv", ".*_cache"))
    tool("git", "init", "--quiet", cwd=worker)
    commit(worker, tool)
    tool("git", "tag", "v1.2.3", cwd=worker)
    page = (QUICKSTART.parent / "how-to" / "share-definitions.md").read_text()
    (add,) = re.findall(r"^    (uv add \"thumbnail-worker .*)$", page, re.MULTILINE)
    (imports,) = re.findall(r"^from thumbnail_worker.*$", page, re.MULTILINE)

    tool("uv", "init", "--quiet", "--bare", "producer", cwd=tmp_path)
    tool("sh", "-c", add.replace("https://git.example.com/thumbnail-worker.git", f"file://{worker}"), cwd=producer)

    check = f"{imports}; print(thumbnails.name, ThumbnailTask.__name__)"
    assert tool("uv", "run", "--quiet", "python", "-c", check, cwd=producer) == "thumbnail-worker ThumbnailTask\n"


@pytest.mark.timeout(INSTALL_TIMEOUT)
def test_a_worker_installs_from_an_index(
    render: Callable[..., Path], template: Path, tmp_path: Path, tool: Tool
) -> None:
    """With sdk_source=index the worker installs as in its image: locked, from wheels, with the SDK alone."""
    wheels = tmp_path / "wheels"
    tool("uv", "build", "--quiet", "--all-packages", "--wheel", "--out-dir", wheels, cwd=template)
    project = render(sdk_source="index", example=False)

    tool("uv", "lock", "--quiet", cwd=project, UV_FIND_LINKS=str(wheels))
    tool("uv", "sync", "--quiet", "--locked", "--no-dev", "--no-editable", cwd=project, UV_FIND_LINKS=str(wheels))

    listed = tool("uv", "pip", "list", cwd=project)
    assert "jobnik-sdk" in listed
    assert "jobnik-devtools" not in listed
    assert "jobnik-reference-manager" not in listed
    sdk = next(
        package
        for package in tomllib.loads((project / "uv.lock").read_text())["package"]
        if package["name"] == "jobnik-sdk"
    )
    assert "git" not in sdk["source"]
    tool(project / ".venv" / "bin" / "python", "-c", "import thumbnail_worker.container", cwd=tmp_path)
