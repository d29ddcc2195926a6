"""Checks of rendered projects: their lint, types and tests, and their workers as processes.

Starting a tool takes longer than running it, so each check takes all projects in a folder at once. The projects differ
only in their own code, so they share the environment of one installed project. They also share a manager.
"""

import asyncio
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import yaml
from jobnik_sdk import JobnikClient, JobStatus, JobType, NewStage, Producer, StageType
from PIL import Image
from pydantic import BaseModel

from tests.support import fork_client
from tests.support.forked_programs import ForkedProcess, ForkServer
from tools.manager import Process

Tool = Callable[..., str]

_STANDARD_OUTPUT: Final = 1
_IMPORTED: Final = (
    "PIL.Image",
    "dependency_injector.containers",
    "jobnik_sdk.service.process",
    "jobnik_sdk.worker.worker",
    "pydantic_settings",
)
"""What every worker imports."""


class AnyTask(BaseModel):
    """The fields of all tasks of these workers; each worker uses some of them."""

    text: str
    source: Path
    target: Path


MANAGER = '''"""The shared manager."""

import pytest


@pytest.fixture(scope="session")
def jobnik_manager() -> str:
    """Return the manager's address."""
    return "{url}"
'''


def check_projects(folder: Path, installed: Path, manager_url: str, tool: Tool) -> None:
    """Run ruff, pyright and pytest for each project in the folder, as `make lint` and `make test` do."""
    projects = _projects(folder)
    programs = installed / ".venv" / "bin"
    tool(programs / "ruff", "check", "--no-cache", *projects, cwd=folder)
    tool(programs / "ruff", "format", "--no-cache", "--diff", *projects, cwd=folder)

    settings = tomllib.loads((projects[0] / "pyproject.toml").read_text())["tool"]["pyright"]
    included = [f"{project.name}/{name}" for project in projects for name in settings["include"]]
    roots = [{"root": project.name, "extraPaths": [f"{project.name}/src"]} for project in projects]
    settings |= {"include": included, "executionEnvironments": roots, "venvPath": str(installed)}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    tool(programs / "pyright", cwd=folder)

    (folder / "conftest.py").write_text(MANAGER.replace("{url}", manager_url))

    command = _pytest_command(programs / "python")

    def test(project: Path) -> None:
        tool(*command, f"--confcutdir={folder}", cwd=project, PYTHONPATH=str(project / "src"))

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        list(pool.map(test, projects))


def _pytest_command(python: Path) -> Sequence[str | Path]:
    """Return a command that is ``python -m pytest``. On Linux, all its processes share most imports."""
    if sys.platform != "linux":
        return python, "-m", "pytest"
    imported = ("pytest", "_pytest.unittest", "_pytest.junitxml", "jobnik_sdk.testing", *_IMPORTED)
    server = ForkServer(*imported, python=python)
    # pytest cannot rewrite the assertions of plugins that are imported already. They are those of the SDK and of anyio.
    quiet = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
    return sys.executable, "-I", "-S", fork_client.__file__, server.address, "pytest", *quiet


async def run_workers(folder: Path, installed: Path, manager_url: str) -> None:
    """Start the worker of each project as a process and check that it completes a task."""
    projects = _projects(folder)
    with _started(projects, installed, manager_url):
        async with JobnikClient(manager_url) as client, asyncio.timeout(90):
            producer = Producer(client)
            await asyncio.gather(*(_complete_a_task(producer, project) for project in projects))


async def _complete_a_task(producer: Producer, project: Path) -> None:
    answers = yaml.safe_load((project / ".copier-answers.yml").read_text())
    task = AnyTask(text="a text", source=project / "picture.png", target=project / "thumbnail.png")
    Image.new("RGB", (8, 8)).save(task.source)
    job_type = JobType("proof")
    stages = [NewStage(StageType(answers["stage_type"], task=AnyTask), [task])]
    job = await producer.create_job(job_type, stages=stages)
    assert (await producer.wait_for_job(job, job_type)).status is JobStatus.COMPLETED, project


@contextmanager
def _started(projects: Sequence[Path], installed: Path, manager_url: str) -> Generator[None]:
    python = installed / ".venv" / "bin" / "python"
    forks = sys.platform == "linux"
    server = ForkServer(*_IMPORTED, python=python) if forks else None
    workers: list[Process] = []
    try:
        for project in projects:
            (package,) = (project / "src").iterdir()
            own = {"JOBNIK_BASE_URL": manager_url, "PROBE_PORT": "0", "PYTHONPATH": str(package.parent)}
            environment = os.environ | own
            if server:
                workers.append(ForkedProcess(server, package.name, [], environment, _STANDARD_OUTPUT, folder=project))
            else:
                workers.append(subprocess.Popen([python, "-m", package.name], cwd=project, env=environment))
        yield
    finally:
        for worker in workers:
            worker.terminate()
        assert [worker.wait() for worker in workers] == [0] * len(projects)


def _projects(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("*/pyproject.toml"))
