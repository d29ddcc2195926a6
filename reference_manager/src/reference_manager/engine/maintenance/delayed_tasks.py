"""Puts delayed tasks back into the queue when their moment has come."""

from datetime import timedelta

from reference_manager.engine.dispatch.notifications import Wakeups
from reference_manager.engine.maintenance.maintenance_task import Duty
from reference_manager.store.pool import Connection, sql

BATCH = 500


class DelayedTasks(Duty):
    """Looks often: a delay is kept to within the pause."""

    name = "delayed tasks"
    pause = timedelta(milliseconds=200)

    def __init__(self, wakeups: Wakeups) -> None:
        self._wakeups = wakeups

    async def round(self, connection: Connection) -> int:
        """Wake tasks until no other is due; how many batches."""
        batches = 0
        while stage_type := await sql.delayed_wake(connection, most=BATCH):
            self._wakeups.notify([stage_type])
            batches += 1
        return batches
