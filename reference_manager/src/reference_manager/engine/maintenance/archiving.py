"""Writes jobs to an archive: a line for each job, with its stages, tasks, attempts and history."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import structlog

from reference_manager.archive.files import ArchiveFile
from reference_manager.archive.stores import SUFFIX, Archive
from reference_manager.store.pool import Connection, sql

log = structlog.stdlib.get_logger(__name__)

STAGES_IN_A_FILE = 1000
TASKS_IN_A_FILE = 20_000
"""A file ends before the job that would exceed one of these. A larger job has a file of its own."""
STAGES_AT_ONCE = 50
TASKS_AT_ONCE = 500
KEEP_ALIVE = timedelta(seconds=5)


async def archive_jobs(
    connection: Connection, archive: Archive, ids: Sequence[UUID], progress: Callable[[], None]
) -> Mapping[UUID, int]:
    """Write the first of these jobs to a new file of the archive, and verify the file.

    Args:
        connection: A connection outside of a transaction.
        archive: The archive.
        ids: The jobs.
        progress: Called after each statement.

    Returns:
        The jobs that the file contains, with their prints: a job with this print is as it is in the file.

    Raises:
        ArchiveError: The jobs are not in the archive.
    """
    prints = dict[UUID, int]()
    name = f"{datetime.now(UTC):%Y/%m/%d}/{uuid4()}{SUFFIX}"
    async with ArchiveFile(archive) as file:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            await sql.archive_begin(connection)
            for job_id in await _first(connection, ids):
                if await _write_job(connection, file, job_id, progress):
                    prints[job_id] = await sql.archive_print(connection, id=job_id)
        if prints:
            await _store(connection, file, name, progress)
            log.info("archived jobs", jobs=len(prints), file=name)
    return prints


async def _store(connection: Connection, file: ArchiveFile, name: str, progress: Callable[[], None]) -> None:
    """Store the file. Meanwhile, use the connection, which PostgreSQL would close if it were idle."""
    storing = asyncio.create_task(file.store(name))
    try:
        while not storing.done():
            await asyncio.wait((storing,), timeout=KEEP_ALIVE.total_seconds())
            await sql.archive_wait(connection)
            progress()
    finally:
        storing.cancel()
    await storing


async def _first(connection: Connection, ids: Sequence[UUID]) -> Sequence[UUID]:
    """Return the first of these jobs: as many as fit in a file, and at least one."""
    chosen: list[UUID] = []
    stages = tasks = 0
    async for row in sql.archive_sizes(connection, ids=ids):
        stages += row["stages"]
        tasks += row["tasks"]
        if chosen and (stages > STAGES_IN_A_FILE or tasks > TASKS_IN_A_FILE):
            break
        chosen.append(row["job_id"])
    return chosen


async def _write_job(connection: Connection, file: ArchiveFile, job_id: UUID, progress: Callable[[], None]) -> bool:
    """Write the line of a job, a part at a time. Return whether the job exists."""
    body = await sql.archive_job(connection, id=job_id)
    if body is None:
        return False
    await file.write(_open_list(body, "stages"))
    position, separator = 0, ""
    while stages := await connection.fetch(sql.archive_stages.sql, job_id, position, STAGES_AT_ONCE):
        for stage in stages:
            await file.write(separator + _open_list(stage["body"], "tasks"))
            await _write_tasks(connection, file, stage["stage_id"], progress)
            await file.write("]}")
            separator = ","
        position = stages[-1]["place"]
    await file.write("]}")
    await file.end_line()
    return True


async def _write_tasks(connection: Connection, file: ArchiveFile, stage_id: UUID, progress: Callable[[], None]) -> None:
    after, separator = 0, ""
    while rows := await connection.fetch(sql.archive_tasks.sql, stage_id, after, TASKS_AT_ONCE):
        await file.write(separator + ",".join(row["body"] for row in rows))
        after, separator = rows[-1]["place"], ","
        progress()


def _open_list(entity: str, name: str) -> str:
    """Return a JSON object that ends with the beginning of one more member, a list."""
    return f'{entity.removesuffix("}")},"{name}":['
