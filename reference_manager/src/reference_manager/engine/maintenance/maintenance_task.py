"""Periodic work, done by one manager at a time. There is no leader: the first manager that takes the lock does it."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from time import time_ns
from typing import ClassVar

import structlog
from opentelemetry import trace

from reference_manager.engine import metrics
from reference_manager.store.errors import DatabaseError
from reference_manager.store.pool import Connection, Database, sql

log = structlog.stdlib.get_logger(__name__)
tracer = trace.get_tracer(__name__)


class MaintenanceTask(ABC):
    """One kind of maintenance."""

    name: ClassVar[str]
    """The name in logs, metrics and traces. The key of the lock is derived from it, so a new name is a new lock."""
    pause: ClassVar[timedelta] = timedelta(seconds=1)
    """The time between the end of one round and the start of the next."""

    @property
    def key(self) -> int:
        """The key of the advisory lock. Only the manager that holds the lock does a round."""
        return int.from_bytes(sha256(f"jobnik {self.name}".encode()).digest()[:8], signed=True)

    @abstractmethod
    async def round(self, connection: Connection) -> int:
        """Do all pending work in small transactions. Return the amount, in a unit of the maintenance task."""

    async def run(self, database: Database, progress: Callable[[], None]) -> None:
        """Do rounds until cancelled, and report progress after each. A failed round is logged; the next tries again."""
        metrics.MAINTENANCE_ROUNDS.labels(self.name)
        failures = metrics.MAINTENANCE_FAILURES.labels(self.name)
        while True:
            try:
                await self.run_once(database)
            except DatabaseError as error:
                failures.inc()
                log.warning(
                    "maintenance task interrupted; the next round tries again", task=self.name, error=str(error)
                )
            except Exception:  # a bug in one round must not stop the maintenance task
                failures.inc()
                log.exception("maintenance task failed; the next round tries again", task=self.name)
            progress()
            await asyncio.sleep(self.pause.total_seconds())

    async def run_once(self, database: Database) -> None:
        """Do one round, unless another manager is doing one now."""
        async with database.connection() as connection:
            if not await sql.maintenance_begin(connection, key=self.key):
                return
            started = time_ns()
            try:
                done = await self.round(connection)
            finally:
                if not connection.is_closed():
                    await sql.maintenance_end(connection, key=self.key)
        metrics.MAINTENANCE_ROUNDS.labels(self.name).inc()
        if done:  # most rounds find nothing to do, and their spans would only fill the trace storage
            tracer.start_span(self.name, attributes={"jobnik.duty.done": done}, start_time=started).end()
