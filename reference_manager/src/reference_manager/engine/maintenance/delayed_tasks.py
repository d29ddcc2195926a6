"""Returns delayed tasks to the queue when they are due."""

from collections.abc import Collection, Sequence
from datetime import timedelta
from uuid import UUID

from reference_manager.engine.dispatch.handover import HandOver
from reference_manager.engine.maintenance.job_maintenance import JobMaintenance
from reference_manager.store.pool import Connection, Record, sql

TASKS_IN_A_PASS = 5000
BATCH_SIZE = 500


class DelayedTasks(JobMaintenance):
    """Runs more often than other maintenance tasks, because a task may be late by up to the pause."""

    name = "delayed tasks"
    pause = timedelta(milliseconds=200)
    batch_size = BATCH_SIZE

    def __init__(self, hand_over: HandOver) -> None:
        super().__init__()
        self._hand_over = hand_over

    async def pending(self, connection: Connection, passed: Sequence[UUID]) -> Sequence[Record]:
        """Return due tasks."""
        return await connection.fetch(sql.delayed_due.sql, passed, TASKS_IN_A_PASS)

    async def work(
        self, connection: Connection, rows: Sequence[Record], *, waits: bool
    ) -> tuple[int, Collection[UUID]]:
        """Return tasks to the queue. Return their number."""
        async with self._hand_over.on(connection) as transaction:
            row = await sql.delayed_wake(connection, ids=[row["task_id"] for row in rows], waits=waits)
            await transaction.announce(row["woken"] or ())
        busy = set[UUID](row["busy"])
        return sum(row["job_id"] not in busy for row in rows), busy
