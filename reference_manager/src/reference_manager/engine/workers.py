"""Workers: their heartbeats, and orders for them."""

from typing import NamedTuple
from uuid import UUID

from reference_manager.domain.requests import Heartbeat
from reference_manager.engine.encoding import encode_if_given
from reference_manager.engine.errors import existing
from reference_manager.store.database import Database, sql


class Orders(NamedTuple):
    """What a worker is told in answer to its heartbeat."""

    lost: list[UUID]
    """Tasks that are no longer its own."""
    cancel: list[UUID]
    """Tasks whose job was aborted."""
    drain: bool
    """Whether it is to claim no more, finish and stop."""


class Workers:
    """Everything that is asked of workers."""

    def __init__(self, database: Database) -> None:
        self._database = database

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
                [encode_if_given(task.progress) for task in heartbeat.running],
            )
        verdicts = [(task_id, verdict) for task_id, _, verdict in rows]
        return Orders(
            lost=[task_id for task_id, verdict in verdicts if verdict == "LOST"],
            cancel=[task_id for task_id, verdict in verdicts if verdict == "CANCEL"],
            drain=drain,
        )

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
            return existing(await sql.worker_order(connection, id=worker_id, drain=drain), "worker")
