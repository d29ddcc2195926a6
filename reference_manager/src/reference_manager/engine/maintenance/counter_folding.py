"""Folds the deltas of claims and reports into the counts of their stages, and sums up totals, to keep reads cheap."""

from reference_manager.engine.maintenance.maintenance_task import MaintenanceTask
from reference_manager.store.pool import Connection, sql


class CounterFolding(MaintenanceTask):
    """Folds one stage in each transaction."""

    name = "counter folding"

    async def round(self, connection: Connection) -> int:
        """Fold every stage that has deltas, then the totals. Return the number of stages and removed rows."""
        stages = [row["stage_id"] async for row in sql.deltas_stages(connection)]
        for stage in stages:
            await sql.deltas_fold(connection, stage_id=stage)
        totals: int = await sql.totals_fold(connection)
        return len(stages) + totals
