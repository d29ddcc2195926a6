"""Records that the routines of this version are in use. A migration drops those that no manager uses any longer."""

from datetime import timedelta

from reference_manager.engine.maintenance.maintenance_task import MaintenanceTask
from reference_manager.store.pool import Connection, sql
from reference_manager.store.schema import LATEST_MIGRATION, ROUTINE_SCHEMA


class RoutineUse(MaintenanceTask):
    """Updates one row each hour. Routines are dropped after 30 days."""

    name = "routine use"
    pause = timedelta(hours=1)

    async def round(self, connection: Connection) -> int:
        """Record the use. Return 0: this is not work that a trace should show."""
        await sql.routines_use(connection, name=ROUTINE_SCHEMA, latest=LATEST_MIGRATION)
        return 0
