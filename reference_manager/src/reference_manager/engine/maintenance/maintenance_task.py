"""Periodic work that one manager at a time does. There is no leader: the first manager to take the lock does it."""

import asyncio
from abc import ABC, abstractmethod
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
    """One kind of work."""

    name: ClassVar[str]
    pause: ClassVar[timedelta] = timedelta(seconds=1)
    """Between the end of one round and the next."""

    @property
    def key(self) -> int:
        """The key of its advisory lock: the manager that holds it runs the task, and no other."""
        return int.from_bytes(sha256(f"jobnik {self.name}".encode()).digest()[:8], signed=True)

    @abstractmethod
    async def round(self, connection: Connection) -> int:
        """Do what there is to do, in transactions that are small; how much that was."""

    async def run(self, database: Database) -> None:
        """Do rounds until cancelled."""
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
            except Exception:  # a defect in one round must not end the task for good
                failures.inc()
                log.exception("maintenance task failed; the next round tries again", task=self.name)
            await asyncio.sleep(self.pause.total_seconds())

    async def run_once(self, database: Database) -> None:
        """Do one round, unless another manager is doing one."""
        async with database.connection() as connection:
            if not await sql.maintenance_begin(connection, key=self.key):
                return
            began = time_ns()
            try:
                done = await self.round(connection)
            finally:
                if not connection.is_closed():
                    await sql.maintenance_end(connection, key=self.key)
        metrics.MAINTENANCE_ROUNDS.labels(self.name).inc()
        if done:  # rounds that found nothing are most of them, and would only fill what keeps the traces
            tracer.start_span(self.name, attributes={"jobnik.duty.done": done}, start_time=began).end()
