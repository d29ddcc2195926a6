"""Workers: their heartbeats, and orders for them."""

from typing import NamedTuple

from reference_manager.domain.commands import Heartbeat, Report
from reference_manager.domain.states import Outcome
from reference_manager.engine.encoding import encode_optional
from reference_manager.engine.errors import require
from reference_manager.engine.queues import TaskQueue
from reference_manager.store.pool import Database, sql

AT_ONCE = 500
"""How many tasks are handed back together."""


class Orders(NamedTuple):
    """What a worker is told in answer to its heartbeat."""

    lost: list[int]
    """Leases that are no longer its own."""
    cancel: list[int]
    """Leases of tasks whose job was aborted."""
    drain: bool
    """Whether it is to claim no more, finish and stop."""


class Workers:
    """Everything that is asked of workers.

    Args:
        database: Where they are listed.
        queue: Takes back what one that leaves still holds.
    """

    def __init__(self, database: Database, queue: TaskQueue) -> None:
        self._database = database
        self._queue = queue

    async def keep(self, heartbeat: Heartbeat) -> Orders:
        """Note that a worker is alive, renew its leases, keep the progress that it reports."""
        async with self._database.connection(for_workers=True) as connection:
            drain: bool = await sql.worker_seen(
                connection,
                id=heartbeat.worker_id,
                stage_types=list(heartbeat.stage_types),
                host=heartbeat.host,
                version=heartbeat.version,
                draining=heartbeat.draining,
                running=len(heartbeat.running),
            )
            rows = await connection.fetch(
                sql.task_keep.sql,
                heartbeat.worker_id,
                [task.task_id for task in heartbeat.running],
                [task.lease_id for task in heartbeat.running],
                [encode_optional(task.progress) for task in heartbeat.running],
                [encode_optional(task.checkpoint) for task in heartbeat.running],
            )
        return Orders(
            lost=[row["lease_id"] for row in rows if row["verdict"] == "LOST"],
            cancel=[row["lease_id"] for row in rows if row["verdict"] == "CANCEL"],
            drain=drain,
        )

    async def leave(self, worker_id: str) -> None:
        """Forget a worker that ends, and hand back what it still holds: the claims whose answers never reached it."""
        async with self._database.connection() as connection:
            held = [row async for row in sql.worker_forget(connection, id=worker_id)]
        reports = [Report(row["task_id"], row["lease_id"], worker_id, Outcome.RELEASED) for row in held]
        for start in range(0, len(reports), AT_ONCE):
            await self._queue.settle(reports[start : start + AT_ONCE])

    async def list(self) -> str:
        """The workers that have sent a heartbeat within the last hour, as JSON, by name."""
        async with self._database.connection() as connection:
            return await sql.worker_list(connection)

    async def order_drain(self, worker_id: str, *, drain: bool) -> str:
        """Tell a worker to drain, or take that back; it hears it with its next heartbeat. The worker as JSON.

        Raises:
            NotFoundError: No such worker has sent a heartbeat.
        """
        async with self._database.connection() as connection:
            return require(await sql.worker_order(connection, id=worker_id, drain=drain), "worker")
