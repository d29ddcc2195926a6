"""What owners do with a project: leave it alone, edit what is theirs, put their own work in the example's place.

Whatever it is, it stays within what AGENTS.md calls theirs, and within what their version of it had.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.template.versions import commit, edit

Tool = Callable[..., str]
Deed = Callable[[Path], None]

MARK = re.compile(r"^ *# Yours, below this line.*\n", re.MULTILINE)

BELOW_THE_MARK = {
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
"""By file, what its owner writes below each mark in it."""

HANDLERS = '''"""What is mine."""

from jobnik_sdk import TaskContext

from {package}.definitions import Page, Words


async def make_thumbnail(task: Page, context: TaskContext, *, quality: int) -> Words:
    """Count a page's words."""
    context.logger.info("page read", quality=quality)
    return Words(count=len(task.text.split()))
'''

DEFINITIONS = '''"""What is mine."""

from jobnik_sdk import StageType
from pydantic import BaseModel


class Page(BaseModel):
    """One page."""

    text: str


class Words(BaseModel):
    """How many there are."""

    count: int


thumbnails = StageType("{stage}", task=Page, result=Words)
'''

SETTINGS = '''"""What is mine."""

from jobnik_sdk import WorkerSettings


class Settings(WorkerSettings):
    """My settings."""

    thumbnail_quality: int = 1
'''

TEST = '''"""My test."""

import pytest
from jobnik_sdk import JobStatus, JobType, NewStage, Producer
from jobnik_sdk.testing import work_off

from {package}.container import Container
from {package}.definitions import Page, thumbnails


async def test_pages_are_read(jobnik_manager: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """My worker does my work."""
    monkeypatch.setenv("JOBNIK_BASE_URL", jobnik_manager)
    container = Container()
    worker = container.worker()
    async with container.client() as client:
        stages = [NewStage(thumbnails, [Page(text="to be or not to be")])]
        job = await Producer(client).create_job(JobType("reading"), stages=stages)
        assert await work_off(worker, job) is JobStatus.COMPLETED
'''


def leave_alone(project: Path) -> None:
    """Change nothing."""
    assert project.is_dir()


def edit_what_is_theirs(project: Path) -> None:
    """Edit the example, and every place that is their owner's."""
    source = _source(project)
    edit(source / "handlers.py", '"thumbnail made"', '"my thumbnail made"')
    edit(source / "handlers.py", "    # Renamed into place", "    # Mine: it is renamed into place")
    edit(source / "definitions.py", "    width: int\n", '    width: int = Field(description="In pixels.")\n')
    _append(source / "settings.py", '\n    bucket: str = "pictures"\n    """Where pictures are kept."""\n')
    (source / "mine.py").write_text('"""Mine."""\n')
    container = source / "container.py"
    if "    function = " in container.read_text():
        edit(container, "    function = ", "    bucket = settings.provided.bucket\n    function = ")
    for name, additions in BELOW_THE_MARK.items():
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
    """Delete the example by plain rm, and do something else under its names."""
    source = _source(project)
    shutil.rmtree(project / "tests")
    (project / "seed.py").unlink(missing_ok=True)
    for name, text in (
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


def take_over(project: Path, deed: Deed, tool: Tool) -> None:
    """Put a fresh project under git and do what its owner does, each as a commit."""
    tool("git", "init", "--quiet", cwd=project)
    commit(project, tool)
    deed(project)
    commit(project, tool)


def assert_kept(project: Path, tool: Tool) -> None:
    """Check that the owner's commit, the last one, still holds: what it wrote is there, what it deleted is not."""
    git = ("git", "diff", "--no-renames", "--unified=0", "HEAD~1", "HEAD")
    for name in tool(*git, "--diff-filter=D", "--name-only", cwd=project).splitlines():
        assert not (project / name).exists(), f"{name} is back"
    for name in tool(*git, "--diff-filter=d", "--name-only", cwd=project).splitlines():
        lines = (project / name).read_text().splitlines()
        _, _, change = tool(*git, "--", name, cwd=project).partition("\n@@")
        written = [line[1:] for line in change.splitlines() if line.startswith("+")]
        assert [line for line in written if line not in lines] == [], f"{name} has lost what its owner wrote"


def _source(project: Path) -> Path:
    (source,) = (project / "src").iterdir()
    return source


def _append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def _write_below_marks(path: Path, additions: list[str]) -> None:
    """Write one addition below each mark; in older versions some files have none."""
    left = iter(additions)
    path.write_text(MARK.sub(lambda mark: mark[0] + next(left), path.read_text()))


def _set_value(values: Path, old: str, new: str) -> None:
    """Set a value, if empty lines keep it apart from the ones beside it; in older versions not all are."""
    if re.search(rf"\n *(#.*)?\n *{re.escape(old)}\n\n", values.read_text()):
        edit(values, old, new)
