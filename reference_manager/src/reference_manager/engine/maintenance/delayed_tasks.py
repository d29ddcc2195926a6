"""Returns delayed tasks to the queue when they are due."""

from datetime import timedelta

from reference_manager.engine.dispatch.notifications import Notifications
from reference_manager.engine.maintenance.maintenance_task import MaintenanceTask
from reference_manager.store.pool import Connection, sql

BATCH_SIZE = 500


class DelayedTasks(MaintenanceTask):
    """Runs more often than other maintenance tasks, because a task may be late by up to the pause."""

    name = "delayed tasks"
    pause = timedelta(milliseconds=200)

    def __init__(self, notifications: Notifications) -> None:
        self._notifications = notifications

    async def round(self, connection: Connection) -> int:
        """Return all due tasks to the queue. Return the number of batches."""
        batches = 0
        while stage_type := await sql.delayed_wake(connection, limit=BATCH_SIZE):
            self._notifications.notify([stage_type])
            batches += 1
        return batches
