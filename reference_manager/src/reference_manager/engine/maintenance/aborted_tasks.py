"""Lets the rows of aborted tasks say so; readers know it at once, by the stage, so that no abort has to wait for it."""

from reference_manager.engine.maintenance.maintenance_task import MaintenanceTask
from reference_manager.store.pool import Connection, sql

BATCH = 1000


class AbortedTasks(MaintenanceTask):
    """A batch of one stage's tasks a transaction."""

    name = "aborted tasks"

    async def round(self, connection: Connection) -> int:
        """Go on until no stage is left to sweep; how many tasks were looked at."""
        done = 0
        while (looked_at := await sql.task_sweep(connection, most=BATCH)) is not None:
            done += looked_at
        return done
