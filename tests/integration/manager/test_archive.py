"""Jobs are in a verified archive before retention deletes them, whatever happens in between."""

import asyncio
import gzip
import json
import os
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable, Generator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from reference_manager.archive.errors import ArchiveError
from reference_manager.archive.files import ArchiveFile, read_lines
from reference_manager.archive.stores import Archive, Folder, open_archive
from reference_manager.engine.maintenance.retention import Retention
from reference_manager.engine.records.retention import RetentionRules
from reference_manager.store.pool import Database

from tests.integration.manager.test_retention import DAY, do_pass, rule
from tests.support.ended_jobs import add_ended
from tests.support.invariants import violations
from tests.support.protocol import Client
from tests.support.s3_server import s3_server
from tests.support.sessions import Session
from tests.support.worker import LeasedWorker, report
from tools.backlog import add_backlog, add_finished
from tools.manager import ManagerProcess

END_LONG_AGO = """
    WITH ended AS (UPDATE jobs SET ended_at = ended_at - interval '1 year' WHERE id = $1 RETURNING *)
    UPDATE ended_jobs SET ended_at = ended.ended_at FROM ended WHERE job_id = ended.id
"""


@pytest.fixture
async def rules(database: Database) -> RetentionRules:
    """Rules that delete jobs after two days, and archive them first."""
    rules = RetentionRules(database)
    await rules.set({None: rule(2)}, archive=True)
    return rules


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """The URL of an archive in a bucket of a real server, whose variables are set."""
    with s3_server(tmp_path_factory.mktemp("s3")) as variables, pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield "s3://archive/jobs"


async def lines(archive: Archive) -> list[dict[str, Any]]:
    """Read all jobs of an archive, one file after another."""
    found: list[dict[str, Any]] = []
    async for name in archive.names():
        text = b"".join([chunk async for chunk in read_lines(archive, name)])
        assert text.endswith(b"\n")
        found += map(json.loads, text.splitlines())
    return found


async def command(*arguments: str) -> tuple[int | None, str, str]:
    """Run ``jobnik-manager archive``. Return its exit code, its output and its error output."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "reference_manager", "archive", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, error = await process.communicate()
    return process.returncode, output.decode(), error.decode()


@pytest.mark.usefixtures("rules")
@pytest.mark.parametrize("place", ["folder", "bucket"])
async def test_an_archive_has_everything_that_the_api_had(  # noqa: PLR0913, PLR0917 - fixtures
    database: Database,
    connection: Session,
    http_of_own: httpx2.AsyncClient,
    tmp_path: Path,
    place: str,
    request: pytest.FixtureRequest,
) -> None:
    """The job with its history, its stages, their tasks, and every attempt. `archive read` prints it."""
    url = f"file://{tmp_path}/archive" if place == "folder" else f"{request.getfixturevalue('bucket')}/all"
    client, worker = Client(http_of_own), LeasedWorker(http_of_own)
    response = await http_of_own.post(
        "/v1/jobs",
        content='{"name": "kept", "data": {"text":\n "line\\nbreak \\u0000"}}',
        headers={"Content-Type": "application/json"},
    )
    job = response.json()
    first, second = await client.stage(job, "first"), await client.stage(job, "second")
    tasks = await client.tasks(first, 2)
    await client.tasks(second, 1)
    error = {"type": "ValueError", "message": "no"}
    one, two = await worker.claim("first", 2)
    await worker.settle(report(one, "FAILED", error=error), report(two, "COMPLETED", result={"answer": 42}))
    (one,) = await worker.claim("first")
    await worker.settle(report(one, "FAILED", error=error, retryable=False))
    expected = {key: value for key, value in (await client.read(job)).items() if key != "stages"}
    assert expected["status"] == "FAILED"
    stages = [await client.read(stage) for stage in (first, second)]
    attempts = {task["id"]: await worker.attempts(task) for stage in stages for task in stage["tasks"]}
    assert [len(attempts[task["id"]]) for task in tasks] == [2, 1]
    await connection.execute(END_LONG_AGO, job["id"])

    await do_pass(database, Retention(open_archive(url)))
    assert (await http_of_own.get(f"/v1/jobs/{job['id']}")).status_code == 404
    code, listed, _ = await command("list", "--archive-url", url)
    (name,) = listed.split()
    assert code == 0
    code, text, _ = await command("read", "--archive-url", url, name)
    assert (code, text.count("\n")) == (0, 1)
    archived = json.loads(text)
    ended_at = archived.pop("endedAt")
    assert ended_at < expected.pop("endedAt")
    changes = [(change["stageId"], change["source"], change["target"]) for change in archived.pop("history")]
    assert (None, None, "PENDING") in changes
    assert (None, "IN_PROGRESS", "FAILED") in changes
    assert (first["id"], "IN_PROGRESS", "FAILED") in changes
    found = archived.pop("stages")
    assert archived == expected
    for stage in found:
        for task in stage["tasks"]:
            assert task.pop("attemptList") == attempts[task["id"]]
    assert found == stages
    code, _, message = await command("read", "--archive-url", url, "2026/nothing.jsonl.gz")
    assert (code, "2026/nothing.jsonl.gz" in message, "\n" in message.strip()) == (1, True, False)
    assert (await command("read", "--archive-url", url, "../secret"))[0] == 1


class FaultyFolder(Folder):
    """A folder in which putting a file goes wrong, the first time."""

    def __init__(self, path: Path, fault: Callable[[Path], None]) -> None:
        super().__init__(path)
        self._faults = [fault]

    async def put(self, name: str, file: Path) -> None:
        """Store a file that is not the right one, or none."""
        if self._faults:
            self._faults.pop()(file)
        await super().put(name, file)


def refuse(_file: Path) -> None:
    """Store nothing."""
    raise ArchiveError("no space left")


def truncate(file: Path) -> None:
    """Store only the beginning."""
    os.truncate(file, file.stat().st_size - 5)


def alter(file: Path) -> None:
    """Store other content of the same length, which is valid."""
    file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes()).replace(b"PENDING", b"ABORTED"), mtime=0))


def lose_a_line(file: Path) -> None:
    """Store a valid file with one job less."""
    file.write_bytes(gzip.compress(b"".join(gzip.decompress(file.read_bytes()).splitlines(keepends=True)[1:])))


def clear(folder: Path) -> None:
    """Delete the files of an archive, which has no unfinished ones."""
    assert not list(folder.rglob("*.partial"))
    for file in folder.rglob("*.gz"):
        file.unlink()


@pytest.mark.parametrize("fault", [refuse, truncate, alter, lose_a_line])
@pytest.mark.usefixtures("rules")
async def test_a_job_stays_unless_its_archive_was_verified(
    database: Database, connection: Session, tmp_path: Path, fault: Callable[[Path], None]
) -> None:
    """If a file cannot be stored or is not what was written, no job is deleted. The next pass archives them again."""
    jobs = await add_ended(connection, "a job", "COMPLETED", [3 * DAY] * 3)
    task = Retention(FaultyFolder(tmp_path, fault))
    await do_pass(database, task)
    assert await connection.fetchval("SELECT count(*) FROM jobs") == 3
    clear(tmp_path)
    await do_pass(database, task)
    assert await connection.fetchval("SELECT count(*) FROM jobs") == 0
    assert sorted(job["id"] for job in await lines(Folder(tmp_path))) == sorted(map(str, jobs))


@pytest.mark.parametrize(
    "change",
    [
        """UPDATE jobs SET user_metadata = '{"late": 1}'""",
        """UPDATE stages SET user_metadata = '{"late": 1}'""",
        """UPDATE tasks SET user_metadata = '{"late": 1}'""",
    ],
)
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.usefixtures("rules")
async def test_a_job_that_changes_after_it_was_archived_is_archived_again(
    database: Database,
    connection: Session,
    tmp_path: Path,
    change: str,
    large: bool,  # noqa: FBT001 - a parameter
) -> None:
    """The last archive of a job has its last state."""
    await add_ended(connection, "a job", "COMPLETED", [3 * DAY])
    if large:
        await connection.execute("UPDATE stages SET completed = 20001")
    changes = [change]

    class Changing(Folder):
        async def put(self, name: str, file: Path) -> None:
            if changes:
                await connection.execute(changes.pop())
            await super().put(name, file)

    await do_pass(database, Retention(Changing(tmp_path)))
    if await connection.fetchval("SELECT count(*) FROM jobs"):  # a pass ends when it has deleted nothing
        await do_pass(database, Retention(Changing(tmp_path)))
    assert await connection.fetchval("SELECT count(*) FROM jobs") == 0
    archived = await lines(Folder(tmp_path))
    assert max(json.dumps(job).count('"late": 1') for job in archived) >= 1
    assert len(archived) == 2


async def test_a_manager_without_an_archive_deletes_nothing(
    database: Database, connection: Session, rules: RetentionRules
) -> None:
    """If the rules ask for an archive. Another manager may have one."""
    (job,) = await add_ended(connection, "a job", "COMPLETED", [3 * DAY])
    await do_pass(database)
    row = await connection.fetchrow("SELECT * FROM delete_due_jobs($1, NULL, 10, false)", [job])
    assert row is not None
    assert await connection.fetchval("SELECT count(*) FROM jobs") == 1
    await rules.set({None: rule(2)})
    await do_pass(database)
    assert await connection.fetchval("SELECT count(*) FROM jobs") == 0


@pytest.fixture
async def large_job(database: Database, connection: Session) -> int:
    """A job with twenty thousand tasks, to be deleted."""
    stage = await add_backlog(database, "large", 0)
    await add_finished(database, stage, 20_000)
    await connection.execute("UPDATE jobs SET status = 'ABORTED'")
    await connection.execute("SELECT sweep_aborted_stages($1, 10)", [stage])
    job = await connection.fetchval("SELECT job_id FROM stages")
    await connection.execute(END_LONG_AGO, job)
    return 20_000


@pytest.mark.timeout(180)  # writes twenty thousand rows, and archives them
@pytest.mark.usefixtures("rules")
async def test_a_large_job_is_archived_in_little_memory(
    database: Database, connection: Session, tmp_path: Path, large_job: int
) -> None:
    """A few hundred tasks are in memory at once, of a job with 15 MB of JSON."""
    task = Retention(Folder(tmp_path))
    tracemalloc.start()
    try:
        await do_pass(database, task)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert await connection.fetchval("SELECT count(*) FROM jobs") == 0
    (job,) = await lines(Folder(tmp_path))
    assert len(job["stages"][0]["tasks"]) == large_job
    assert len(json.dumps(job)) > 10_000_000
    assert peak < 5_000_000


async def test_a_file_of_several_parts_is_stored_in_a_bucket(bucket: str) -> None:
    """A large file is uploaded in parts, and read back as a whole."""
    archive = open_archive(bucket)
    async with ArchiveFile(archive) as file:
        for _ in range(100):
            await file.write(os.urandom(100_000).hex())
        await file.end_line()
        await file.store("large.jsonl.gz")
    assert [name async for name in archive.names() if name == "large.jsonl.gz"]


@pytest.mark.usefixtures("rules")
async def test_two_managers_one_of_which_is_killed_archive_everything(
    start_manager: Callable[..., ManagerProcess], connection: Session, tmp_path: Path
) -> None:
    """Every deleted job is in a complete file, and a job that is kept is not deleted."""
    due = await add_ended(connection, "a job", "COMPLETED", [3 * DAY] * 1500)
    kept = await add_ended(connection, "a job", "COMPLETED", [timedelta(hours=1)] * 20)
    first, _second = [start_manager("--archive-url", f"file://{tmp_path}") for _ in range(2)]
    killed = False
    while left := await connection.fetchval("SELECT count(*) FROM jobs WHERE id = ANY ($1)", due):
        await asyncio.sleep(0.01)
        if left < len(due) and not killed:
            first.process.kill()
            killed = True
            await connection.execute("UPDATE retention_state SET next_pass = now()")
    archived = Counter(job["id"] for job in await lines(Folder(tmp_path)))
    assert archived.keys() == set(map(str, due))
    assert max(archived.values()) <= 2  # those of the file that was not followed by a deletion
    assert await connection.fetchval("SELECT count(*) FROM jobs WHERE id = ANY ($1)", kept) == len(kept)
    assert not await violations(connection)
