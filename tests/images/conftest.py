"""The images, built from their Dockerfiles, and fixtures to run them."""

import os
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import copier
import pytest
from reference_manager.embedded import EmbeddedPostgres

from tests.images.bases import SLIM, make_bases
from tests.images.buildah import Buildah, Image
from tests.images.containers import Container
from tests.images.private_index import PASSWORD, USER, private_index
from tools.data_folder import temporary_data_folder
from tools.snapshot import ROOT, take_snapshot

NEEDED = ("buildah", "mmdebstrap")
STORAGE = ROOT / ".tools" / "images"

HANDLER = '''\
"""The handler of the worker."""

from pathlib import Path

from jobnik_sdk import TaskContext

from private_worker.definitions import WorkResult, WorkTask


def handle(task: WorkTask, _context: TaskContext) -> WorkResult:
    """Read a file, which blocks until its writer has closed it."""
    return WorkResult(text=Path(task.text).read_text())
'''


def pytest_sessionstart() -> None:
    """Stop the run if a requirement is missing."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if os.name != "posix" or os.getuid() != 0 or missing:
        pytest.exit(f"make images needs root on Linux, and {' and '.join(NEEDED)}: install them with apt-get.", 1)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the size, the start time and the number of passed tests of each image."""
    results: dict[str, dict[str, Any]] = defaultdict(dict)
    passed: dict[str, int] = defaultdict(int)
    for report in terminalreporter.stats.get("passed", []):
        properties = dict(report.user_properties)
        if name := properties.pop("image", None):
            results[name] |= properties
            passed[name] += 1
    if results:
        terminalreporter.section("images")
        terminalreporter.line(f"{'image':<16}{'MB':>8}{'/app MB':>8}{'ready in':>10}{'passed':>8}")
    for name, figures in results.items():
        cells = (figures.get("size", ""), figures.get("ours", ""), figures.get("ready", ""), passed[name])
        terminalreporter.line(f"{name:<16}{cells[0]:>8}{cells[1]:>8}{cells[2]:>10}{cells[3]:>8}")


@pytest.fixture(scope="session")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Generator[Buildah]:
    """Return a Buildah that has the base images."""
    with Buildah(STORAGE, tmp_path_factory.mktemp("state")) as buildah:
        make_bases(buildah, tmp_path_factory.mktemp("bases"))
        yield buildah


@pytest.fixture(scope="session")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the build secrets that this machine needs to reach a package index: its certificates and its index."""
    known: dict[str, Path] = {}
    if certificates := os.environ.get("SSL_CERT_FILE"):
        known["ca"] = Path(certificates)
    if index := os.environ.get("PIP_INDEX_URL"):
        known["pip.conf"] = tmp_path_factory.mktemp("pip") / "pip.conf"
        known["pip.conf"].write_text(f"[global]\nindex-url = {index}\n")
    return known


@pytest.fixture(scope="session")
def base(buildah: Buildah) -> set[Path]:
    """Return the paths of all files in the base image."""
    root = buildah.mount(SLIM)
    return {path.relative_to(root) for path in root.rglob("*")}


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository whose newest commit is this working tree."""
    destination = tmp_path_factory.mktemp("template")
    take_snapshot(destination)
    return destination


@pytest.fixture(scope="session")
def manager_image(buildah: Buildah, secrets: dict[str, Path]) -> Image:
    """Build the manager's image."""
    buildah.build("manager", ROOT, f"--file={ROOT / 'reference_manager' / 'Dockerfile'}", secrets=secrets)
    return buildah.open("manager")


@pytest.fixture(scope="session")
def project(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a worker with default answers: with the example, and the SDK from the template's repository."""
    project = tmp_path_factory.mktemp("worker") / "project"
    _render(template, project, service_name="thumbnail-worker")
    _run("uv", "lock", "--quiet", cwd=project)
    return project


@pytest.fixture(scope="session")
def build_worker(buildah: Buildah, template: Path, project: Path, secrets: dict[str, Path]) -> Callable[[str], Image]:
    """Return a function that builds the current state of that worker under a name."""

    def build(name: str) -> Image:
        # Normally a build reaches the repository by URL; here it is a folder.
        buildah.build(name, project, f"--volume={template}:{template}:ro", secrets=secrets)
        return buildah.open(name)

    return build


@pytest.fixture(scope="session")
def worker_image(build_worker: Callable[[str], Image]) -> Image:
    """Return the image of that worker."""
    return build_worker("worker")


@pytest.fixture(scope="session")
def private_worker_image(
    buildah: Buildah, template: Path, secrets: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Image:
    """Return the image of a worker that installs from a private package index and runs its handler in a process."""
    folder = tmp_path_factory.mktemp("private")
    project, wheels = folder / "project", folder / "packages" / "jobnik-sdk"
    _render(
        template, project, service_name="private-worker", sdk_source="index", handler_style="process", example=False
    )
    (project / "src" / "private_worker" / "handlers.py").write_text(HANDLER)
    for name in ("sdk", "devtools", "reference_manager"):
        distribution = "jobnik-" + name.replace("_", "-")
        out = wheels.with_name(distribution)
        _run("uv", "build", "--quiet", "--wheel", f"--out-dir={out}", template / name, cwd=folder)
    own = {name: folder / name for name in ("netrc", "pip.conf", "uv.toml")}
    with private_index(wheels.parent, os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple")) as index:
        own["netrc"].write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
        own["pip.conf"].write_text(f"[global]\nindex-url = {index}\n")
        own["uv.toml"].write_text(f'[[index]]\nurl = "{index}"\ndefault = true\n')
        _run("uv", "lock", "--quiet", f"--config-file={own['uv.toml']}", cwd=project, NETRC=str(own["netrc"]))
        buildah.build("private-worker", project, secrets=secrets | own)
    return buildah.open("private-worker")


@pytest.fixture
def image(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Image:
    """Return the image with the fixture name of the parameter, and record the test for the summary."""
    image: Image = request.getfixturevalue(request.param)
    record_property("image", image.name)
    return image


@pytest.fixture(scope="session")
def database_url() -> Generator[str]:
    """Start a PostgreSQL outside the images, and return its URL."""
    with temporary_data_folder() as folder, EmbeddedPostgres(folder, durable=False) as server:
        yield server.url


@pytest.fixture
def run(tmp_path: Path) -> Generator[Callable[..., Container]]:
    """Return a function that runs an image until the end of the test. All containers of a test share one /tmp."""
    with ExitStack() as stack:

        def start(image: Image, *arguments: str, **options: str) -> Container:
            return stack.enter_context(Container(image, *arguments, tmp=tmp_path, **options))

        yield start


def _render(template: Path, project: Path, **answers: object) -> None:
    copier.run_copy(str(template), project, data=answers, defaults=True, quiet=True)


def _run(*command: str | Path, cwd: Path, **environment: str) -> None:
    ours = {"VIRTUAL_ENV", "UV_FROZEN"}
    inherited = {name: value for name, value in os.environ.items() if name not in ours}
    program = os.environ.get("UV", "uv") if command[0] == "uv" else command[0]
    subprocess.run([program, *command[1:]], cwd=cwd, env=inherited | environment, check=True)
