"""The template of this working tree, including uncommitted changes, and projects rendered from it."""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping
from pathlib import Path

import copier
import pytest

from tests.template import versions
from tests.template.charts import Chart
from tests.template.environments import clean_environment, share_bytecode
from tests.template.quick_copier import quicken, write_uv
from tests.template.versions import IDENTITY, build_history, clone_to_release, next_version, take_thin_snapshot
from tools.crds import Schema, find_schemas
from tools.data_folder import temporary_data_folder
from tools.helm import find_helm
from tools.snapshot import ROOT, take_snapshot

BuildOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session", autouse=True)
def quick_copier(tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    """Let Copier render in less time, also for the doctor. `make doctor` still uses the Copier that uv installs.

    Its clones are in memory: on a disk, the system takes longer to write and remove their files than Copier runs.
    """
    programs = tmp_path_factory.mktemp("uv")
    with temporary_data_folder(in_memory=True) as folder, pytest.MonkeyPatch.context() as patch:
        folder.mkdir()
        patch.setattr(tempfile, "tempdir", str(folder))
        patch.setenv("TMPDIR", str(folder))
        quicken(patch)
        if sys.platform == "linux":  # elsewhere, there is no server that forks
            patch.setenv("UV", str(write_uv(programs)))
        yield


@pytest.fixture(scope="session")
def build_once(tmp_path_factory: pytest.TempPathFactory) -> BuildOnce:
    """Return a function that fills a folder once for all workers of pytest-xdist, for tests that do not change it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def build(name: str, fill: Callable[[Path], object]) -> Path:
        folder, filled = shared / name, shared / f"{name}.filled"
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not filled.exists():
                shutil.rmtree(folder, ignore_errors=True)  # another worker may have failed
                folder.mkdir()
                fill(folder)
                filled.touch()
        return folder

    return build


@pytest.fixture(scope="session")
def template(build_once: BuildOnce) -> Path:
    """Return a repository whose newest commit is this working tree."""
    return build_once("template", take_snapshot)


@pytest.fixture(scope="session")
def thin_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the same repository with only the files that rendering reads."""
    repository = tmp_path_factory.mktemp("thin") / "template"
    take_thin_snapshot(repository)
    return repository


@pytest.fixture(scope="session")
def released(template: Path, build_once: BuildOnce, tool: Callable[..., str]) -> Path:
    """Return a clone of the template in which `tools.release` has made the next release."""

    def fill(folder: Path) -> None:
        clone_to_release(template, folder, tool)
        tool(sys.executable, "-m", "tools.release", next_version(), cwd=folder, **IDENTITY)

    return build_once("released", fill)


@pytest.fixture(scope="session")
def history(released: Path, build_once: BuildOnce, tool: Callable[..., str]) -> Path:
    """Return a thin repository of all versions, the newest of which is the next release."""
    return build_once("history", lambda folder: build_history(folder, released, tool)) / "history"


@pytest.fixture(scope="session")
def render_version(history: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that renders a project from the newest version or from a tag of the history.

    Each version is rendered once for each name of a project, and then copied.
    """
    folder = tmp_path_factory.mktemp("versions")

    def render_or_copy(project: Path, tag: str = "") -> Path:
        rendered = folder / (tag or "newest") / project.name
        if not rendered.exists():
            versions.render(history, rendered, tag=tag or None)
        return shutil.copytree(rendered, project)

    return render_or_copy


@pytest.fixture
def render(thin_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a function that renders a project from answers, with a default `service_name`."""
    # Copier keeps a mirror of every URL, and these templates are temporary.
    monkeypatch.setenv("COPIER_CACHE_DIR", str(tmp_path / "mirrors"))

    def render_project(source: str | Path = thin_template, **answers: object) -> Path:
        destination = tmp_path / "project"
        data = {"service_name": "thumbnail-worker", **answers}
        copier.run_copy(str(source), destination, data=data, defaults=True, quiet=True, unsafe=False)
        return destination

    return render_project


@pytest.fixture(scope="session")
def rendered(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project with all defaults, for tests that do not change it."""
    project = tmp_path_factory.mktemp("rendered") / "project"
    copier.run_copy(str(template), project, data={"service_name": "thumbnail-worker"}, defaults=True, quiet=True)
    return project


@pytest.fixture(scope="session")
def installed(rendered: Path, tool: Callable[..., str]) -> Path:
    """Return a project with the example, installed from the template's repository."""
    tool("uv", "sync", "--quiet", cwd=rendered)
    share_bytecode(rendered / ".venv")
    return rendered


@pytest.fixture(scope="session")
def helm() -> Path:
    """Return the path of helm."""
    return find_helm()


@pytest.fixture(scope="session")
def schemas() -> Mapping[str, Schema]:
    """Return the schemas of custom resources, by kind."""
    return find_schemas()


@pytest.fixture(scope="session")
def worker_chart(rendered: Path, helm: Path, schemas: Mapping[str, Schema]) -> Chart:
    """Return the chart of a rendered project."""
    return Chart(rendered / "helm", helm, schemas)


@pytest.fixture(scope="session")
def manager_chart(helm: Path, schemas: Mapping[str, Schema]) -> Chart:
    """Return the manager's chart."""
    return Chart(ROOT / "reference_manager" / "helm", helm, schemas)


@pytest.fixture(scope="session", params=["worker", "manager"])
def chart(request: pytest.FixtureRequest) -> Chart:
    """Return each chart in turn."""
    return request.getfixturevalue(f"{request.param}_chart")


@pytest.fixture(scope="session")
def tool() -> Callable[..., str]:
    """Return a function that runs a program in a folder and returns its output; it fails if the program fails."""

    def run(*command: str | Path, cwd: Path, **environment: str) -> str:
        result = subprocess.run(
            [str(part) for part in command],
            cwd=cwd,
            env=clean_environment() | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert result.returncode == 0, f"{command} in {cwd}\n{result.stdout}"
        return result.stdout

    return run


@pytest.fixture(scope="session")
def bin_dir() -> Path:
    """Return the folder of this environment's commands, such as ruff and hadolint."""
    return Path(sys.executable).parent
