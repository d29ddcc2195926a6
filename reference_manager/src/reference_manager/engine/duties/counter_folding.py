"""Adds to each stage's counts what claims and reports have moved: reading stays cheap, the table of deltas small."""

from reference_manager.engine.duties.duty import Duty
from reference_manager.store.database import Connection, sql


class CounterFolding(Duty):
    """One stage a transaction."""

    name = "counter folding"

    async def round(self, connection: Connection) -> None:
        """Fold every stage that has deltas."""
        for stage in [row["stage_id"] async for row in sql.deltas_stages(connection)]:
            await sql.deltas_fold(connection, stage_id=stage)
