"""Puts delayed tasks back into the queue when their moment has come."""

from datetime import timedelta

from reference_manager.engine.dispatch.notifications import Notifications
from reference_manager.engine.maintenance.maintenance_task import MaintenanceTask
from reference_manager.store.pool import Connection, sql

BATCH = 500


class DelayedTasks(MaintenanceTask):
    """Looks often: a delay is kept to within the pause."""

    name = "delayed tasks"
    pause = timedelta(milliseconds=200)

    def __init__(self, notifications: Notifications) -> None:
        self._notifications = notifications

    async def round(self, connection: Connection) -> int:
        """Wake tasks until no other is due; how many batches."""
        batches = 0
        while stage_type := await sql.delayed_wake(connection, most=BATCH):
            self._notifications.notify([stage_type])
            batches += 1
        return batches
