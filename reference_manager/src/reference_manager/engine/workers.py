"""Workers: their heartbeats, and orders for them."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import partial
from typing import NamedTuple, TypeAlias

from reference_manager.domain.commands import Heartbeat, PageRequest, Report, WorkerKey
from reference_manager.domain.payloads import encode
from reference_manager.domain.states import Outcome
from reference_manager.engine.dispatch.batching import Batcher
from reference_manager.engine.errors import require
from reference_manager.engine.queues import TaskQueue
from reference_manager.engine.records.pages import Listing, Page, read_page
from reference_manager.store.errors import LockTimeoutError
from reference_manager.store.pool import Database, Record, sql

RELEASE_BATCH = 500
"""The maximum number of tasks to release with one call."""
HEARTBEAT_BATCH = 128
"""The maximum number of heartbeats in a batch."""
RENEWAL_BATCH = 10_000
"""The maximum number of tasks in one statement, unless a single heartbeat has more."""
WORKER_LOCK_TIMEOUT = timedelta(milliseconds=300)
"""How long a batch of heartbeats waits for the row of a worker."""
HEARTBEAT_TIMEOUT = timedelta(seconds=1)
"""How long a single heartbeat then waits for its rows. A worker repeats it before its leases expire."""


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
        """Record heartbeats, and forward those that need a locked row. The others must not wait with them."""
        orders: list[Orders | HeartbeatBatcher] = []
        for part in _parts(heartbeats):
            try:
                recorded = await self._record_part(part, WORKER_LOCK_TIMEOUT, for_workers=True)
            except LockTimeoutError:
                recorded = [None] * len(part)
            orders += map(self._orders_or_batcher, part, recorded)
        return orders

    def _orders_or_batcher(self, heartbeat: Heartbeat, orders: Orders | None) -> Orders | HeartbeatBatcher:
        """Return the orders; if there are none yet, the batcher of the worker. It exists only while it is needed."""
        if orders is not None:
            return orders
        worker_id = heartbeat.worker_id
        batcher = self._worker_batchers.get(worker_id)
        if batcher is None:
            remove = partial(self._worker_batchers.pop, worker_id)
            batcher = self._worker_batchers[worker_id] = Batcher(self._record_waiting, HEARTBEAT_BATCH, remove)
        return batcher

    async def _record_waiting(self, heartbeats: Sequence[Heartbeat]) -> Sequence[Orders]:
        """Record the heartbeats of one worker, one after the other, once no other session has locked their rows."""
        run = self._database.lock_waits.run
        return [
            await run(("heartbeat", heartbeat.worker_id), partial(self._record_one, heartbeat), HEARTBEAT_TIMEOUT)
            for heartbeat in heartbeats
        ]

    async def _record_one(self, heartbeat: Heartbeat, wait: timedelta) -> Orders:
        (orders,) = await self._record_part((heartbeat,), wait, for_workers=False)
        if orders is None:
            raise LockTimeoutError("another session has locked a task whose progress or checkpoint was sent")
        return orders

    async def _record_part(
        self, heartbeats: Sequence[Heartbeat], wait: timedelta, *, for_workers: bool
    ) -> Sequence[Orders | None]:
        """Record heartbeats of different workers. None: another session has locked a task of the heartbeat."""
        running = [(index, task) for index, heartbeat in enumerate(heartbeats) for task in heartbeat.running]
        async with self._database.connection(for_workers=for_workers) as connection:
            # First the leases: they are renewed even if the row of a worker is locked.
            exceptions = await connection.fetch(
                sql.leases_renew.sql,
                [heartbeats[index].worker_id for index, _ in running],
                [task.task_id for _, task in running],
                [task.lease_id for _, task in running],
                [task.progress for _, task in running],
                [task.checkpoint for _, task in running],
            )
            upserted = await connection.fetch(
                sql.workers_upsert.sql,
                [heartbeat.worker_id for heartbeat in heartbeats],
                [encode(heartbeat.stage_types) for heartbeat in heartbeats],
                [heartbeat.host for heartbeat in heartbeats],
                [heartbeat.version for heartbeat in heartbeats],
                [heartbeat.draining for heartbeat in heartbeats],
                [len(heartbeat.running) for heartbeat in heartbeats],
                wait,
            )
        drain: dict[str, bool] = {row["id"]: row["drain_wanted"] for row in upserted}
        orders = [Orders([], [], drain[heartbeat.worker_id]) for heartbeat in heartbeats]
        locked = set[int]()
        for row in exceptions:
            place: int = row["place"]
            index, task = running[place - 1]
            match row["verdict"]:
                case "LOST":
                    orders[index].lost.append(task.lease_id)
                case "CANCEL":
                    orders[index].cancel.append(task.lease_id)
                case _:
                    locked.add(index)
        return [None if index in locked else mine for index, mine in enumerate(orders)]

    async def deregister(self, worker_id: str) -> None:
        """Delete a worker that has ended, and release its tasks: those of claims whose responses never reached it."""
        held = await self._database.lock_waits.run(("worker", worker_id), partial(self._delete, worker_id))
        reports = [Report(row["task_id"], row["lease_id"], worker_id, Outcome.RELEASED) for row in held]
        for start in range(0, len(reports), RELEASE_BATCH):
            await self._queue.settle(reports[start : start + RELEASE_BATCH])

    async def _delete(self, worker_id: str, wait: timedelta) -> Sequence[Record]:
        async with self._database.connection() as connection:
            return [row async for row in sql.worker_delete(connection, id=worker_id, wait=wait)]

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
        attempt = partial(self._set_drain, worker_id, drain)
        return await self._database.lock_waits.run(("worker", worker_id), attempt)

    async def _set_drain(self, worker_id: str, drain: bool, wait: timedelta) -> str:  # noqa: FBT001 - of a partial
        async with self._database.connection() as connection:
            return require(await sql.worker_set_drain(connection, id=worker_id, drain=drain, wait=wait), "worker")


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
