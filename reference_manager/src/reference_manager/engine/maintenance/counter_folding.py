"""Folds the deltas of claims and reports into the counts of their stages, and sums up totals, to keep reads cheap."""

from collections.abc import Collection, Sequence
from uuid import UUID

from reference_manager.engine.maintenance.job_maintenance import JobMaintenance
from reference_manager.store.pool import Connection, Record, sql

STAGES_IN_A_PASS = 5000
BATCH_SIZE = 50


class CounterFolding(JobMaintenance):
    """Folds up to ``BATCH_SIZE`` stages in each transaction."""

    name = "counter folding"
    batch_size = BATCH_SIZE

    async def is_due(self, connection: Connection) -> bool:
        """Return whether there are deltas or totals to fold."""
        return await sql.folding_is_due(connection)

    async def round(self, connection: Connection) -> int:
        """Fold the stages that have deltas, then the totals. Return the number of stages and removed rows."""
        stages = await super().round(connection)
        totals: int = await sql.totals_fold(connection)
        return stages + totals

    async def pending(self, connection: Connection, passed: Sequence[UUID]) -> Sequence[Record]:
        """Return stages that have deltas, the oldest deltas first."""
        return await connection.fetch(sql.deltas_stages.sql, passed, STAGES_IN_A_PASS)

    async def work(
        self, connection: Connection, rows: Sequence[Record], *, waits: bool
    ) -> tuple[int, Collection[UUID]]:
        """Fold stages. Return their number."""
        busy = set[UUID](await sql.deltas_fold(connection, stages=[row["stage_id"] for row in rows], waits=waits))
        return sum(row["job_id"] not in busy for row in rows), busy
