"""Workers: their heartbeats, and orders for them."""

from typing import NamedTuple

from reference_manager.domain.commands import Heartbeat, PageRequest, Report, WorkerKey
from reference_manager.domain.states import Outcome
from reference_manager.engine.errors import require
from reference_manager.engine.queues import TaskQueue
from reference_manager.engine.records.pages import Listing, Page, read_page
from reference_manager.store.pool import Database, encode_optional, sql

RELEASE_BATCH = 500
"""The maximum number of tasks to release with one call."""


class Orders(NamedTuple):
    """The response to a heartbeat."""

    lost: list[int]
    """Leases that the worker no longer holds."""
    cancel: list[int]
    """Leases of tasks whose job was aborted."""
    drain: bool
    """Whether the worker must stop claiming, finish its tasks and stop."""


class Workers:
    """Heartbeats, drain orders and the list of workers.

    Args:
        database: The database of the workers.
        queue: Takes back the tasks of a worker that deregisters.
    """

    def __init__(self, database: Database, queue: TaskQueue) -> None:
        self._database = database
        self._queue = queue

    async def record_heartbeat(self, heartbeat: Heartbeat) -> Orders:
        """Record that a worker is alive, renew its leases, and store progress and checkpoints of its tasks."""
        async with self._database.connection(for_workers=True) as connection:
            drain: bool = await sql.worker_upsert(
                connection,
                id=heartbeat.worker_id,
                stage_types=list(heartbeat.stage_types),
                host=heartbeat.host,
                version=heartbeat.version,
                draining=heartbeat.draining,
                running=len(heartbeat.running),
            )
            rows = await connection.fetch(
                sql.leases_renew.sql,
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

    async def deregister(self, worker_id: str) -> None:
        """Delete a worker that has ended, and release its tasks: those of claims whose responses never reached it."""
        async with self._database.connection() as connection:
            held = [row async for row in sql.worker_delete(connection, id=worker_id)]
        reports = [Report(row["task_id"], row["lease_id"], worker_id, Outcome.RELEASED) for row in held]
        for start in range(0, len(reports), RELEASE_BATCH):
            await self._queue.settle(reports[start : start + RELEASE_BATCH])

    def list(self) -> Listing[WorkerKey]:
        """List the workers that sent a heartbeat within the last hour, by id."""
        return Listing(WorkerKey, self._read)

    async def _read(self, request: PageRequest[WorkerKey]) -> Page[WorkerKey]:
        async with self._database.connection() as connection:
            rows = sql.worker_list(
                connection,
                descending=request.descending,
                after_id=request.after.id if request.after else None,
                limit=request.limit,
            )
            return await read_page(rows, WorkerKey)

    async def order_drain(self, worker_id: str, *, drain: bool) -> str:
        """Order a worker to drain, or withdraw the order. The response to its next heartbeat carries the order.

        Returns:
            The worker as JSON.

        Raises:
            NotFoundError: There is no such worker.
        """
        async with self._database.connection() as connection:
            return require(await sql.worker_set_drain(connection, id=worker_id, drain=drain), "worker")
