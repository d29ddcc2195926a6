"""Updates the rows of aborted tasks.

Readers take the status of such a task from its stage, so that an abort does not wait until all rows are updated.
"""

from collections.abc import Collection, Sequence
from uuid import UUID

from reference_manager.engine.maintenance.job_maintenance import JobMaintenance
from reference_manager.store.pool import Connection, Record, sql

STAGES_IN_A_PASS = 5000
STAGES_IN_A_BATCH = 50
TASKS_IN_A_BATCH = 1000


class AbortedTasks(JobMaintenance):
    """Updates up to ``TASKS_IN_A_BATCH`` tasks in each transaction, a share of each of its stages."""

    name = "aborted tasks"
    batch_size = STAGES_IN_A_BATCH

    async def is_due(self, connection: Connection) -> bool:
        """Return whether there are aborted stages."""
        return await sql.aborted_are_due(connection)

    async def pending(self, connection: Connection, passed: Sequence[UUID]) -> Sequence[Record]:
        """Return aborted stages."""
        return await connection.fetch(sql.aborted_stages.sql, passed, STAGES_IN_A_PASS)

    async def work(
        self, connection: Connection, rows: Sequence[Record], *, waits: bool
    ) -> tuple[int, Collection[UUID]]:
        """Update tasks. Return the number of examined tasks and finished stages. This needs no lock of a job."""
        del waits
        return await sql.tasks_sweep(connection, stages=[row["stage_id"] for row in rows], limit=TASKS_IN_A_BATCH), ()
