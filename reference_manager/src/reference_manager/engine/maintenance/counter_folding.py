"""Adds to each stage's counts what claims and reports have moved, and sums up the totals: reading stays cheap."""

from reference_manager.engine.maintenance.maintenance_task import MaintenanceTask
from reference_manager.store.pool import Connection, sql


class CounterFolding(MaintenanceTask):
    """One stage a transaction."""

    name = "counter folding"

    async def round(self, connection: Connection) -> int:
        """Fold every stage that has deltas, then the totals; how many stages, and rows of totals."""
        stages = [row["stage_id"] async for row in sql.deltas_stages(connection)]
        for stage in stages:
            await sql.deltas_fold(connection, stage_id=stage)
        totals: int = await sql.totals_fold(connection)
        return len(stages) + totals
