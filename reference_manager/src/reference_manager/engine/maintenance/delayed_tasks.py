"""Returns delayed tasks to the queue when they are due."""

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import timedelta
from uuid import UUID

from reference_manager.engine.dispatch.handover import Handover
from reference_manager.engine.maintenance.job_maintenance import JobMaintenance
from reference_manager.store.pool import Connection, Record, sql

TASKS_IN_A_PASS = 5000
BATCH_SIZE = 500
LONGEST_REST = timedelta(seconds=1)
"""The longest time between two rounds."""


class DelayedTasks(JobMaintenance):
    """Runs more often than other maintenance tasks, because a task may be late by up to the pause.

    While this manager neither knows of a task that is due soon nor makes a transaction that may delay one, it asks only
    every ``LONGEST_REST``, for the tasks that other managers have delayed. They ask sooner, unless they have died.
    """

    name = "delayed tasks"
    pause = timedelta(milliseconds=200)
    batch_size = BATCH_SIZE

    def __init__(self, handover: Handover) -> None:
        super().__init__()
        self._handover = handover
        self._due_in: float | None = None
        """Seconds from the last question until the next task is due. None: there was none."""

    async def is_due(self, connection: Connection) -> bool:
        """Return whether a task is due."""
        self._handover.used.clear()  # before the question, whose answer may not include a later transaction
        self._due_in = await sql.delayed_wait(connection)
        return self._due_in is not None and self._due_in <= 0

    async def rest(self) -> None:
        """Wait for the pause, and then until a task is due, this manager may have delayed one, or the rest is over."""
        await super().rest()
        longest = LONGEST_REST.total_seconds()
        seconds = longest if self._due_in is None else min(self._due_in, longest)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds - self.pause.total_seconds()):
                await self._handover.used.wait()

    async def pending(self, connection: Connection, passed: Sequence[UUID]) -> Sequence[Record]:
        """Return due tasks."""
        return await connection.fetch(sql.delayed_due.sql, passed, TASKS_IN_A_PASS)

    async def work(
        self, connection: Connection, rows: Sequence[Record], *, waits: bool
    ) -> tuple[int, Collection[UUID]]:
        """Return tasks to the queue. Return their number."""
        async with self._handover.on(connection) as transaction:
            row = await sql.delayed_wake(connection, ids=[row["task_id"] for row in rows], waits=waits)
            await transaction.announce(row["woken"] or ())
        busy = set[UUID](row["busy"])
        return sum(row["job_id"] not in busy for row in rows), busy
