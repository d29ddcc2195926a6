"""Deletes the rows of the tasks of deleted jobs.

Without its stage, no client can see a task. So the deletion of a job does not wait until all rows are deleted.
"""

from collections.abc import Collection, Sequence
from time import monotonic
from uuid import UUID

from reference_manager.engine.maintenance.job_maintenance import JobMaintenance, rest_after
from reference_manager.store.pool import Connection, Record, sql

STAGES_IN_A_PASS = 5000
STAGES_IN_A_BATCH = 50
TASKS_IN_A_BATCH = 500


class DeletedJobs(JobMaintenance):
    """Deletes up to ``TASKS_IN_A_BATCH`` tasks in each transaction, a share of each of its stages."""

    name = "deleted jobs"
    batch_size = STAGES_IN_A_BATCH

    async def is_due(self, connection: Connection) -> bool:
        """Return whether there are deleted stages."""
        return await sql.deleted_are_due(connection)

    async def pending(self, connection: Connection, passed: Sequence[UUID]) -> Sequence[Record]:
        """Return deleted stages."""
        return await connection.fetch(sql.deleted_stages.sql, passed, STAGES_IN_A_PASS)

    async def work(
        self, connection: Connection, rows: Sequence[Record], *, waits: bool
    ) -> tuple[int, Collection[UUID]]:
        """Delete tasks. Return the number of deleted rows and finished stages. This needs no lock of a job."""
        del waits
        started = monotonic()
        done = await sql.tasks_remove(connection, stages=[row["stage_id"] for row in rows], limit=TASKS_IN_A_BATCH)
        await rest_after(started)
        return done, ()
