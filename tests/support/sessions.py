"""Sessions on the database of a manager, beside those of the manager."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TypeAlias
from uuid import UUID

import asyncpg
from reference_manager.store.pool import Connection
from reference_manager.store.schema import SEARCH_PATH

Session: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
AnyConnection: TypeAlias = "Session | Connection"
"""A session of a test, or a connection of the manager's pool."""

ROW_LOCKS = {
    "job": "SELECT FROM jobs WHERE id = $1 FOR UPDATE",
    "stage": "SELECT FROM stages WHERE job_id = $1 FOR UPDATE",
    "task": "SELECT FROM tasks WHERE stage_id IN (SELECT id FROM stages WHERE job_id = $1) FOR UPDATE",
}
"""Statements that lock rows of a job, as a person does who changes them at a console."""


@asynccontextmanager
async def session(database_url: str) -> AsyncGenerator[Session]:
    """Connect to a database with the search path of a manager."""
    connection = await asyncpg.connect(database_url, server_settings={"search_path": SEARCH_PATH})
    try:
        yield connection
    finally:
        await connection.close()


async def lock_waiters(observer: AnyConnection) -> int:
    """Return how many sessions of the database wait for a lock."""
    await _look_again(observer)
    return await observer.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )


async def wait_for_lock_waiters(observer: AnyConnection, waiters: int = 1) -> None:
    """Wait until at least this many sessions of the database wait for a lock."""
    while await lock_waiters(observer) < waiters:
        pass


async def wait_for_blocked_statement(observer: AnyConnection, text: str) -> None:
    """Wait until another session of the database waits for a lock in a statement with this text."""
    blocked = """
        SELECT EXISTS (
            SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()
                AND strpos(query, $1) > 0
        )
    """
    while not await observer.fetchval(blocked, text):
        await _look_again(observer)


async def _look_again(observer: AnyConnection) -> None:
    """Let a transaction see sessions that have started since its first look."""
    await observer.execute("SELECT pg_stat_clear_snapshot()")


async def job_of(observer: AnyConnection, stage: UUID) -> UUID:
    """Return the job of a stage."""
    return await observer.fetchval("SELECT job_id FROM stages WHERE id = $1", stage)
