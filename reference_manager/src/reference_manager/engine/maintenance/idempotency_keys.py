"""Deletes idempotency keys that are older than 24 hours."""

from datetime import timedelta

from reference_manager.engine.maintenance.maintenance_task import MaintenanceTask
from reference_manager.store.pool import Connection, sql

BATCH_SIZE = 1000


class IdempotencyKeys(MaintenanceTask):
    """Deletes up to ``BATCH_SIZE`` keys in each transaction, which waits for no other session."""

    name = "idempotency keys"
    pause = timedelta(seconds=10)

    async def round(self, connection: Connection) -> int:
        """Delete the old keys. Return their number."""
        total = 0
        while deleted := await sql.keys_forget(connection, limit=BATCH_SIZE):
            total += deleted
            self.progress()
        return total
