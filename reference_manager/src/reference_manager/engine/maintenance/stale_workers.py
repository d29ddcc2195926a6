"""Deletes workers that have not sent a heartbeat for a long time."""

from datetime import timedelta

from reference_manager.engine.maintenance.maintenance_task import MaintenanceTask
from reference_manager.store.pool import Connection, sql


class StaleWorkers(MaintenanceTask):
    """Deletes the rows of such workers in one statement, which waits for no other session."""

    name = "stale workers"
    pause = timedelta(seconds=10)

    async def round(self, connection: Connection) -> int:
        """Delete stale workers. Return their number."""
        return await sql.workers_forget(connection)
