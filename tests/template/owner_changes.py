"""Changes that owners make to a project: none, edits of their own files, or a replacement of the example.

All changes stay within the files that AGENTS.md assigns to the owner and that exist in the project's version.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.template.versions import commit, edit

Tool = Callable[..., str]
OwnerChange = Callable[[Path], None]

MARK = re.compile(r"^ *# Yours, below this line.*\n", re.MULTILINE)

ADDITIONS = {
    ".dockerignore": ["!models\n"],
    ".env.example": ["# Where pictures are kept.\nBUCKET=pictures\n"],
    ".github/workflows/ci.yml": [
        "  mine:\n    runs-on: ubuntu-latest\n    timeout-minutes: 5\n    steps:\n      - run: true\n"
    ],
    ".gitignore": ["/models/\n"],
    "Dockerfile": ["RUN echo mine\n"],
    "Makefile": ["mine:  ## do what is mine\n\t@echo mine\n"],
    "pyproject.toml": ['  "tifffile>=2025",\n', '  "types-boto3",\n', "[tool.mine]\nsetting = 1\n"],
}
"""The lines that the owner adds below each mark, by file."""

CONTAINER = '''"""The owner's wiring."""

from functools import partial

from dependency_injector import containers, providers
from jobnik_sdk import Handler, JobnikClient, Worker

from {package}.definitions import thumbnails
from {package}.handlers import make_thumbnail
from {package}.settings import Settings


class Container(containers.DeclarativeContainer):
    """The owner's wiring."""

    settings = providers.Singleton(Settings)
    client = providers.Singleton(JobnikClient, settings.provided.jobnik_base_url)
    function = providers.Singleton(partial, make_thumbnail, quality=settings.provided.thumbnail_quality)
    handler = providers.Singleton(Handler, thumbnails, function)
    worker = providers.Singleton(Worker.from_settings, settings, providers.List(handler), client=client)
'''

HANDLERS = '''"""The owner's handler."""

from jobnik_sdk import TaskContext

from {package}.definitions import Page, Words


async def make_thumbnail(task: Page, context: TaskContext, *, quality: int) -> Words:
    """Count a page's words."""
    context.logger.info("page read", quality=quality)
    return Words(count=len(task.text.split()))
'''

DEFINITIONS = '''"""The owner's types."""

from jobnik_sdk import StageType
from pydantic import BaseModel


class Page(BaseModel):
    """One page."""

    text: str


class Words(BaseModel):
    """The number of words."""

    count: int


thumbnails = StageType("{stage}", task=Page, result=Words)
'''

SETTINGS = '''"""The owner's settings."""

from jobnik_sdk import WorkerSettings


class Settings(WorkerSettings):
    """The owner's settings."""

    thumbnail_quality: int = 1
'''

TEST = '''"""The owner's test."""

import pytest
from jobnik_sdk import JobStatus, JobType, NewStage, Producer
from jobnik_sdk.testing import work_off

from {package}.container import Container
from {package}.definitions import Page, thumbnails


async def test_pages_are_read(jobnik_manager: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker completes a job."""
    monkeypatch.setenv("JOBNIK_BASE_URL", jobnik_manager)
    container = Container()
    worker = container.worker()
    async with container.client() as client:
        stages = [NewStage(thumbnails, [Page(text="to be or not to be")])]
        job = await Producer(client).create_job(JobType("reading"), stages=stages)
        assert await work_off(worker, job) is JobStatus.COMPLETED
'''


def change_nothing(project: Path) -> None:
    """Change nothing."""
    assert project.is_dir()


def edit_owned_files(project: Path) -> None:
    """Edit the example and everything else that belongs to the owner."""
    source = _source(project)
    edit(source / "handlers.py", '"thumbnail made"', '"my thumbnail made"')
    edit(source / "handlers.py", "    # Renamed into place", "    # Mine: it is renamed into place")
    edit(source / "definitions.py", "    width: int\n", '    width: int = Field(description="In pixels.")\n')
    _append(source / "settings.py", '\n    bucket: str = "pictures"\n    """Where pictures are kept."""\n')
    (source / "mine.py").write_text('"""Mine."""\n')
    container = source / "container.py"
    if "    function = " in container.read_text():
        edit(container, "    function = ", "    bucket = settings.provided.bucket\n    function = ")
    for name, additions in ADDITIONS.items():
        _write_below_marks(project / name, additions)
    for old, new in (
        ("replicas: 1", "replicas: 3"),
        ("concurrency: 1", "concurrency: 8"),
        ("baseUrl: http://jobnik-manager:8080", "baseUrl: https://jobnik.example.com"),
        ("memory: 256Mi", "memory: 1Gi"),
        ("extra: {}", 'extra: {BUCKET: "pictures"}'),
    ):
        _set_value(project / "helm" / "values.yaml", old, new)


def replace_the_example(project: Path) -> None:
    """Delete the files of the example and write other code under the same names."""
    source = _source(project)
    shutil.rmtree(project / "tests")
    (project / "seed.py").unlink(missing_ok=True)
    for name, text in (
        ("container.py", CONTAINER),
        ("handlers.py", HANDLERS),
        ("definitions.py", DEFINITIONS.replace("{stage}", project.name)),
        ("settings.py", SETTINGS),
    ):
        (source / name).unlink()
        (source / name).write_text(text.replace("{package}", source.name))
    (project / "tests").mkdir()
    (project / "tests" / "test_mine.py").write_text(TEST.replace("{package}", source.name))
    pyproject = project / "pyproject.toml"
    edit(pyproject, '  "pillow>=13.0",\n', "")


def commit_owner_change(project: Path, change: OwnerChange, tool: Tool) -> None:
    """Commit a new project, then commit the owner's change."""
    tool("git", "init", "--quiet", cwd=project)
    commit(project, tool)
    change(project)
    commit(project, tool)


def assert_kept(project: Path, tool: Tool) -> None:
    """Check that the last commit, the owner's, is still in effect: its lines exist and deleted files are absent."""
    git = ("git", "diff", "--no-renames", "--unified=0", "HEAD~1", "HEAD")
    for name in tool(*git, "--diff-filter=D", "--name-only", cwd=project).splitlines():
        assert not (project / name).exists(), f"{name} was deleted by its owner and has come back"
    for name in tool(*git, "--diff-filter=d", "--name-only", cwd=project).splitlines():
        lines = (project / name).read_text().splitlines()
        _, _, change = tool(*git, "--", name, cwd=project).partition("\n@@")
        written = [line[1:] for line in change.splitlines() if line.startswith("+")]
        assert [line for line in written if line not in lines] == [], f"{name} has lost lines of its owner"


def _source(project: Path) -> Path:
    (source,) = (project / "src").iterdir()
    return source


def _append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def _write_below_marks(path: Path, additions: list[str]) -> None:
    """Write one addition below each mark. In older versions some files have no mark."""
    left = iter(additions)
    path.write_text(MARK.sub(lambda mark: mark[0] + next(left), path.read_text()))


def _set_value(values: Path, old: str, new: str) -> None:
    """Set a value if an empty line follows it, which is not the case for all values in older versions."""
    if re.search(rf"\n *(#.*)?\n *{re.escape(old)}\n\n", values.read_text()):
        edit(values, old, new)
