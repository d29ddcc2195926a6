"""What stands beside each other in one statement, and what waits before it: neither changes what is due to each."""

import asyncio
from datetime import timedelta

import asyncpg
from reference_manager.domain.requests import Report
from reference_manager.domain.states import Outcome, TaskStatus
from reference_manager.engine.settlements import settle
from reference_manager.store.database import Connection, Database, sql

from tools.backlog import add_backlog

LEASE = timedelta(seconds=1)
OUTCOMES = {
    Outcome.FAILED: TaskStatus.RETRIED,
    Outcome.SNOOZED: TaskStatus.PENDING,
    Outcome.COMPLETED: TaskStatus.COMPLETED,
}
"""And what becomes of a task by each."""


async def claim(connection: Connection) -> asyncpg.Record:
    """A task of the type "late", in the hands of "holder"."""
    (row,) = await connection.fetch(sql.task_claim.sql, "late", 1, [1], ["holder"], [LEASE])
    return row


async def test_a_strangers_report_is_not_in_the_way_of_the_holders(database: Database) -> None:
    """Whoever names a lease that is not his own is refused; the holder's report in the same batch counts."""
    await add_backlog(database, "late", len(OUTCOMES))
    async with database.connection() as connection:
        for outcome, target in OUTCOMES.items():
            task = await claim(connection)
            stranger, holder = (
                Report(task["task"], task["lease"], worker, outcome, delay=timedelta(hours=1))
                for worker in ("stranger", "holder")
            )
            verdicts, _ = await settle(connection, [stranger, holder])
            assert [verdict.target for verdict in verdicts] == [None, target]


async def test_a_lease_begins_when_its_task_is_handed_out(database: Database, database_url: str) -> None:
    """A claim that had to wait for a job's lock has its whole lease before it, however long that took."""
    stage = await add_backlog(database, "late", 1)
    other = await asyncpg.connect(database_url, server_settings={"search_path": "jobnik"})
    try:
        async with database.connection() as connection:
            async with other.transaction():
                await other.execute("SELECT pg_advisory_xact_lock(job_key(job_id)) FROM stages WHERE id = $1", stage)
                claiming = asyncio.create_task(claim(connection))
                while not await other.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                    pass
                released = await other.fetchval("SELECT clock_timestamp()")
            task = await claiming
            expires = await connection.fetchval("SELECT expires_at FROM leases WHERE id = $1", task["lease"])
            assert expires >= released + LEASE
    finally:
        await other.close()
