"""Both images, really built, and what they are run with."""

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
"""What the worker does with a task."""

from pathlib import Path

from jobnik_sdk import TaskContext

from private_worker.definitions import WorkResult, WorkTask


def handle(task: WorkTask, _context: TaskContext) -> WorkResult:
    """Read a file, which may take as long as its writer takes."""
    return WorkResult(text=Path(task.text).read_text())
'''


def pytest_sessionstart() -> None:
    """Say at once what is missing."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if os.name != "posix" or os.getuid() != 0 or missing:
        pytest.exit(f"make images wants to be root on Linux, with {' and '.join(NEEDED)}: apt-get install them.", 1)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say of each image how large it is, how soon it starts, and how many tests it passed."""
    told: dict[str, dict[str, Any]] = defaultdict(dict)
    passed: dict[str, int] = defaultdict(int)
    for report in terminalreporter.stats.get("passed", []):
        properties = dict(report.user_properties)
        if name := properties.pop("image", None):
            told[name] |= properties
            passed[name] += 1
    if told:
        terminalreporter.section("images")
        terminalreporter.line(f"{'image':<16}{'MB':>8}{'ours':>8}{'ready in':>10}{'passed':>8}")
    for name, figures in told.items():
        cells = (figures.get("size", ""), figures.get("ours", ""), figures.get("ready", ""), passed[name])
        terminalreporter.line(f"{name:<16}{cells[0]:>8}{cells[1]:>8}{cells[2]:>10}{cells[3]:>8}")


@pytest.fixture(scope="session")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Generator[Buildah]:
    """Buildah, with what our images begin with."""
    with Buildah(STORAGE, tmp_path_factory.mktemp("state")) as buildah:
        make_bases(buildah, tmp_path_factory.mktemp("bases"))
        yield buildah


@pytest.fixture(scope="session")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What a build has to know to reach an index from this machine: its certificates, its index."""
    known: dict[str, Path] = {}
    if certificates := os.environ.get("SSL_CERT_FILE"):
        known["ca"] = Path(certificates)
    if index := os.environ.get("PIP_INDEX_URL"):
        known["pip.conf"] = tmp_path_factory.mktemp("pip") / "pip.conf"
        known["pip.conf"].write_text(f"[global]\nindex-url = {index}\n")
    return known


@pytest.fixture(scope="session")
def base(buildah: Buildah) -> set[Path]:
    """What is in the image that ours begin with, by its path."""
    root = buildah.mount(SLIM)
    return {path.relative_to(root) for path in root.rglob("*")}


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose newest commit is this working tree."""
    destination = tmp_path_factory.mktemp("template")
    take_snapshot(destination)
    return destination


@pytest.fixture(scope="session")
def manager_image(buildah: Buildah, secrets: dict[str, Path]) -> Image:
    """The manager."""
    buildah.build("manager", ROOT, f"--file={ROOT / 'reference_manager' / 'Dockerfile'}", secrets=secrets)
    return buildah.open("manager")


@pytest.fixture(scope="session")
def project(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A worker from default answers: with the example, and the SDK from the template's repository."""
    project = tmp_path_factory.mktemp("worker") / "project"
    _render(template, project, service_name="thumbnail-worker")
    _run("uv", "lock", "--quiet", cwd=project)
    return project


@pytest.fixture(scope="session")
def build_worker(buildah: Buildah, template: Path, project: Path, secrets: dict[str, Path]) -> Callable[[str], Image]:
    """Give a function that builds that worker, as it is then, under a name."""

    def build(name: str) -> Image:
        # Elsewhere a build reaches the repository by its URL; this one is a folder.
        buildah.build(name, project, f"--volume={template}:{template}:ro", secrets=secrets)
        return buildah.open(name)

    return build


@pytest.fixture(scope="session")
def worker_image(build_worker: Callable[[str], Image]) -> Image:
    """That worker's image."""
    return build_worker("worker")


@pytest.fixture(scope="session")
def private_worker_image(
    buildah: Buildah, template: Path, secrets: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Image:
    """A worker of somebody who has a package index of their own, with a handler of their own in a process."""
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
    """The image that a test is about, by the name of its fixture; the summary counts it."""
    image: Image = request.getfixturevalue(request.param)
    record_property("image", image.name)
    return image


@pytest.fixture(scope="session")
def database_url() -> Generator[str]:
    """A PostgreSQL that is nobody's part."""
    with temporary_data_folder() as folder, EmbeddedPostgres(folder, durable=False) as server:
        yield server.url


@pytest.fixture
def run(tmp_path: Path) -> Generator[Callable[..., Container]]:
    """Give a function that runs an image until the test is over; all of a test's have one /tmp, the test's own."""
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
