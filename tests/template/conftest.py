"""The template as it lies here, uncommitted changes included, and projects that were rendered from it."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import copier
import pytest

from tests.template.charts import Chart
from tests.template.environments import of_a_newcomer
from tests.template.versions import IDENTITY, build_history, clone_to_release, next_version, take_thin_snapshot
from tools.crds import Schema, find_schemas
from tools.helm import find_helm
from tools.snapshot import ROOT, take_snapshot


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a repository whose newest commit is this working tree."""
    destination = tmp_path_factory.mktemp("template")
    take_snapshot(destination)
    return destination


@pytest.fixture(scope="session")
def thin_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the same with no more in it than rendering reads."""
    repository = tmp_path_factory.mktemp("thin") / "template"
    take_thin_snapshot(repository)
    return repository


@pytest.fixture(scope="session")
def released(template: Path, tmp_path_factory: pytest.TempPathFactory, tool: Callable[..., str]) -> Path:
    """Give a clone of the template that `tools.release` has made the next release in."""
    clone = clone_to_release(template, tmp_path_factory.mktemp("released") / "clone", tool)
    tool(sys.executable, "-m", "tools.release", next_version(), cwd=clone, **IDENTITY)
    return clone


@pytest.fixture(scope="session")
def history(released: Path, tmp_path_factory: pytest.TempPathFactory, tool: Callable[..., str]) -> Path:
    """Give a thin repository of all versions, that release as the newest of them."""
    return build_history(tmp_path_factory.mktemp("history"), released, tool)


@pytest.fixture
def render(thin_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Give a function that renders a project from answers, `service_name` unless they say otherwise."""
    # Copier keeps a mirror of every URL, and these templates are gone tomorrow.
    monkeypatch.setenv("COPIER_CACHE_DIR", str(tmp_path / "mirrors"))

    def render_project(source: str | Path = thin_template, **answers: object) -> Path:
        destination = tmp_path / "project"
        data = {"service_name": "thumbnail-worker", **answers}
        copier.run_copy(str(source), destination, data=data, defaults=True, quiet=True, unsafe=False)
        return destination

    return render_project


@pytest.fixture(scope="session")
def rendered(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a project with every default, for tests that do not touch what was rendered."""
    project = tmp_path_factory.mktemp("rendered") / "project"
    copier.run_copy(str(template), project, data={"service_name": "thumbnail-worker"}, defaults=True, quiet=True)
    return project


@pytest.fixture(scope="session")
def installed(rendered: Path, tool: Callable[..., str]) -> Path:
    """Give a project with the example, its environment installed from the template's own repository."""
    tool("uv", "sync", "--quiet", cwd=rendered)
    return rendered


@pytest.fixture(scope="session")
def helm() -> Path:
    """Give a helm that runs."""
    return find_helm()


@pytest.fixture(scope="session")
def schemas() -> Mapping[str, Schema]:
    """Give the schemas of custom resources, by kind."""
    return find_schemas()


@pytest.fixture(scope="session")
def worker_chart(rendered: Path, helm: Path, schemas: Mapping[str, Schema]) -> Chart:
    """Give the chart of a rendered project."""
    return Chart(rendered / "helm", helm, schemas)


@pytest.fixture(scope="session")
def manager_chart(helm: Path, schemas: Mapping[str, Schema]) -> Chart:
    """Give the manager's chart."""
    return Chart(ROOT / "reference_manager" / "helm", helm, schemas)


@pytest.fixture(scope="session", params=["worker", "manager"])
def chart(request: pytest.FixtureRequest) -> Chart:
    """Give each chart in turn."""
    return request.getfixturevalue(f"{request.param}_chart")


@pytest.fixture(scope="session")
def tool() -> Callable[..., str]:
    """Give a function that runs a program in a folder and returns what it printed; an error of its is the test's."""

    def run(*command: str | Path, cwd: Path, **environment: str) -> str:
        result = subprocess.run(
            [str(part) for part in command],
            cwd=cwd,
            env=of_a_newcomer() | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert result.returncode == 0, f"{command} in {cwd}\n{result.stdout}"
        return result.stdout

    return run


@pytest.fixture(scope="session")
def own() -> Path:
    """Give the folder of the commands that this environment brings: ruff, hadolint and so on."""
    return Path(sys.executable).parent
