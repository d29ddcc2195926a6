"""Workers: their heartbeats, and orders for them."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

from reference_manager.domain.commands import Heartbeat, PageRequest, Report, WorkerKey
from reference_manager.domain.states import Outcome
from reference_manager.engine.dispatch.batching import Batcher
from reference_manager.engine.errors import require
from reference_manager.engine.queues import TaskQueue
from reference_manager.engine.records.pages import Listing, Page, read_page
from reference_manager.store.errors import LockTimeoutError
from reference_manager.store.pool import Database, encode, encode_optional, sql

RELEASE_BATCH = 500
"""The maximum number of tasks to release with one call."""
HEARTBEAT_BATCH = 128
"""The maximum number of heartbeats in a batch."""
RENEWAL_BATCH = 10_000
"""The maximum number of tasks in one statement, unless a single heartbeat has more."""


class Orders(NamedTuple):
    """The response to a heartbeat."""

    lost: list[int]
    """Leases that the worker no longer holds."""
    cancel: list[int]
    """Leases of tasks whose job was aborted."""
    drain: bool
    """Whether the worker must stop claiming, finish its tasks and stop."""


HeartbeatBatcher: TypeAlias = Batcher[Heartbeat, Orders]


class Workers:
    """Heartbeats, drain orders and the list of workers.

    Args:
        database: The database of the workers.
        queue: Takes back the tasks of a worker that deregisters.
    """

    def __init__(self, database: Database, queue: TaskQueue) -> None:
        self._database = database
        self._queue = queue
        self._heartbeats: HeartbeatBatcher = Batcher(self._record, HEARTBEAT_BATCH)
        self._worker_batchers: dict[str, HeartbeatBatcher] = {}

    async def record_heartbeat(self, heartbeat: Heartbeat) -> Orders:
        """Record that a worker is alive, renew its leases, and store progress and checkpoints of its tasks."""
        (orders,) = await self._heartbeats.submit((heartbeat,))
        return orders

    async def _record(self, heartbeats: Sequence[Heartbeat]) -> Sequence[Orders | HeartbeatBatcher]:
        try:
            return await self._record_all(heartbeats)
        except LockTimeoutError:
            # Another session has locked a row that one of the heartbeats changes. The others must not fail with it.
            return [self._worker_batcher(heartbeat.worker_id) for heartbeat in heartbeats]

    def _worker_batcher(self, worker_id: str) -> HeartbeatBatcher:
        """Return the batcher of the heartbeats of a single worker. It exists only while there are any."""
        batcher = self._worker_batchers.get(worker_id)
        if batcher is None:
            remove = partial(self._worker_batchers.pop, worker_id)
            batcher = self._worker_batchers[worker_id] = Batcher(self._record_all, HEARTBEAT_BATCH, remove)
        return batcher

    async def _record_all(self, heartbeats: Sequence[Heartbeat]) -> Sequence[Orders]:
        return [orders for part in _parts(heartbeats) for orders in await self._record_part(part)]

    async def _record_part(self, heartbeats: Sequence[Heartbeat]) -> Sequence[Orders]:
        running = [(index, task) for index, heartbeat in enumerate(heartbeats) for task in heartbeat.running]
        async with self._database.connection(for_workers=True) as connection:
            upserted = await connection.fetch(
                sql.workers_upsert.sql,
                [heartbeat.worker_id for heartbeat in heartbeats],
                [encode(heartbeat.stage_types) for heartbeat in heartbeats],
                [heartbeat.host for heartbeat in heartbeats],
                [heartbeat.version for heartbeat in heartbeats],
                [heartbeat.draining for heartbeat in heartbeats],
                [len(heartbeat.running) for heartbeat in heartbeats],
            )
            given_up = await connection.fetch(
                sql.leases_renew.sql,
                [heartbeats[index].worker_id for index, _ in running],
                [task.task_id for _, task in running],
                [task.lease_id for _, task in running],
                [encode_optional(task.progress) for _, task in running],
                [encode_optional(task.checkpoint) for _, task in running],
            )
        drain: dict[str, bool] = {row["id"]: row["drain_wanted"] for row in upserted}
        orders = [Orders([], [], drain[heartbeat.worker_id]) for heartbeat in heartbeats]
        for row in given_up:
            place: int = row["place"]
            index, task = running[place - 1]
            leases = orders[index].cancel if row["verdict"] == "CANCEL" else orders[index].lost
            leases.append(task.lease_id)
        return orders

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


def _parts(heartbeats: Sequence[Heartbeat]) -> Iterator[Sequence[Heartbeat]]:
    """Split heartbeats into statements of limited size. The heartbeats of one statement are of different workers."""
    part = list[Heartbeat]()
    for heartbeat in heartbeats:
        tasks = sum(len(other.running) for other in (*part, heartbeat))
        if part and (tasks > RENEWAL_BATCH or any(other.worker_id == heartbeat.worker_id for other in part)):
            yield part
            part = list[Heartbeat]()
        part.append(heartbeat)
    yield part
