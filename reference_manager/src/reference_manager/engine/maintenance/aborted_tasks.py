"""Updates the rows of aborted tasks.

Readers take the status of such a task from its stage, so that an abort does not wait until all rows are updated.
"""

from reference_manager.engine.maintenance.maintenance_task import MaintenanceTask
from reference_manager.store.pool import Connection, sql

BATCH_SIZE = 1000


class AbortedTasks(MaintenanceTask):
    """Updates up to ``BATCH_SIZE`` tasks of one stage in each transaction."""

    name = "aborted tasks"

    async def round(self, connection: Connection) -> int:
        """Update the tasks of all aborted stages. Return the number of examined tasks."""
        done = 0
        while (examined := await sql.task_sweep(connection, limit=BATCH_SIZE)) is not None:
            done += examined
        return done
