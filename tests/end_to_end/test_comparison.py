"""The comparison with other queues: Jobnik's code runs as shown, and the table counts the lines of all tools."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple
from uuid import UUID

import pytest
from jobnik_sdk import JobnikClient, JobStatus, JobType, Producer, StageType, TaskStatus
from pydantic import BaseModel

PAGE: Final = Path(__file__).parents[2] / "docs" / "explanation" / "comparison.md"
PROGRAM: Final = "The program"
RETRIES: Final = "Retries with growing delays"
TOOLS: Final = ("Jobnik", "Celery", "Procrastinate", "Temporal", "Hatchet")
_PART: Final = re.compile(r"^## (.+)$|^### (.+)$|^```(?:python|sql)\n([^`]+)^```$", re.MULTILINE)
_ROW: Final = re.compile(r"^\| ([\w ]+?) \|((?: \d+ \|){5})$", re.MULTILINE)
_PROGRAMS: Final = Path(sys.executable).parent
_POST: Final = "import sys, web; print(web.app.test_client().post('/surveys', json=sys.argv[1:]).json['id'])"


class Block(NamedTuple):
    """A block of code with its headings: a section of the page, and a tool."""

    section: str
    tool: str
    code: str


class Words(BaseModel):
    """The result of a task."""

    words: int


def _read_blocks() -> list[Block]:
    section = tool = ""
    blocks: list[Block] = []
    for heading, subheading, code in _PART.findall(PAGE.read_text(encoding="utf-8")):
        if code:
            blocks.append(Block(section, tool, code))
        else:
            section, tool = heading or section, subheading
    return [block for block in blocks if block.tool in TOOLS or block.section == PROGRAM]


BLOCKS: Final = _read_blocks()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of Jobnik's code. The blocks of a file, which all start with its name, follow one another."""
    folder = tmp_path_factory.mktemp("comparison")
    for block in BLOCKS:
        if block.tool == "Jobnik" or block.section == PROGRAM:
            with (folder / block.code.split()[1]).open("a") as file:
                file.write(block.code)
    return folder


def _run(folder: Path, *command: str | Path, **environment: str) -> str:
    result = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@contextmanager
def _worker(folder: Path, manager: str) -> Generator[None]:
    """Run the worker's process, and check that SIGTERM ends it without an error."""
    environment = os.environ | {"JOBNIK_BASE_URL": manager, "PROBE_PORT": "0"}
    with subprocess.Popen([sys.executable, "worker.py"], cwd=folder, env=environment) as process:
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(30)
    assert code == 0


@pytest.mark.timeout(90)  # two programs that import the whole SDK; the first test starts a manager
async def test_the_program_counts_words(folder: Path, jobnik_manager: str, tmp_path: Path) -> None:
    """A page that appears after the first attempt is counted, too, and the results are added up."""
    first, late = tmp_path / "first.txt", tmp_path / "late.txt"
    first.write_text("to be or not to be")
    urls = [first.as_uri(), late.as_uri()]
    job = UUID(_run(folder, sys.executable, "-c", _POST, *urls, JOBNIK_BASE_URL=jobnik_manager).strip())
    pages = StageType("pages", task=BaseModel, result=Words)
    async with JobnikClient(jobnik_manager) as client:
        producer = Producer(client)
        stages = [stage async for stage in producer.list_stages(job)]
        with _worker(folder, jobnik_manager):
            while (await producer.get_tasks(stages[0], pages))[1].status is not TaskStatus.RETRIED:  # noqa: ASYNC110
                await asyncio.sleep(0.05)  # the manager has no event to wait for
            late.write_text("that is the question")
            done = await producer.wait_for_job(job, JobType("survey"))
        tasks = await producer.get_tasks(stages[0], pages)
        totals = await producer.get_tasks(stages[1], pages)
    assert (done.status, [task.max_attempts for task in tasks]) == (JobStatus.COMPLETED, [5, 5])
    assert [total.result for total in totals] == [Words(words=10)]


def test_the_test_passes(folder: Path) -> None:
    """The test of the handler passes; nothing needs a manager."""
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto")
    assert "1 passed" in _run(folder, *command, "test_tasks.py")


@pytest.mark.timeout(120)  # a type checker is a program of its own, and reads all that the SDK stands on
def test_the_code_type_checks(folder: Path) -> None:
    """Pyright strict has no complaint about Jobnik's code."""
    (folder / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict", "pythonVersion": "3.11"}')
    _run(folder, _PROGRAMS / "pyright", "--pythonpath", sys.executable, "--project", folder)


def test_the_table_counts_the_lines() -> None:
    """It counts lines that are neither blank nor comments; for retries, only those that an earlier block lacks."""
    counts: dict[str, dict[str, int]] = {}
    shown: dict[str, set[str]] = {tool: set() for tool in TOOLS}
    for section, tool, code in BLOCKS:
        if section == PROGRAM:
            continue
        lines = [line for line in code.splitlines() if line and not line.startswith("#")]
        counted = [line for line in lines if section != RETRIES or line not in shown[tool]]
        row = counts.setdefault(section, dict.fromkeys(TOOLS, 0))
        row[tool] += len(counted)
        shown[tool].update(lines)
    expected = {section: list(row.values()) for section, row in counts.items()}
    expected["All five"] = [sum(column) for column in zip(*expected.values(), strict=True)]
    table = _ROW.findall(PAGE.read_text(encoding="utf-8"))
    assert {section: [int(number) for number in re.findall(r"\d+", row)] for section, row in table} == expected


def test_all_code_has_the_same_format(tmp_path: Path) -> None:
    """Ruff formats the code of every tool, with the line length of this project."""
    for number, block in enumerate(BLOCKS):
        if block.code.startswith("# "):
            (tmp_path / f"{number}.py").write_text(block.code)
    _run(tmp_path, _PROGRAMS / "ruff", "format", "--isolated", "--check", "--line-length=120", ".")
