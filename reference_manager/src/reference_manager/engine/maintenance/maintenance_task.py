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

LONGEST_PAUSE = timedelta(seconds=30)
"""The longest pause after failed rounds. The pause doubles with each of them."""


class MaintenanceTask(ABC):
    """One kind of maintenance."""

    name: ClassVar[str]
    """The name in logs, metrics and traces. The key of the lock is derived from it, so a new name is a new lock."""
    pause: ClassVar[timedelta] = timedelta(seconds=1)
    """The time between the end of one round and the start of the next."""

    def __init__(self) -> None:
        self.progress: Callable[[], None] = lambda: None
        """Reports progress. A round that takes long calls it after each transaction."""

    @classmethod
    def key(cls) -> int:
        """Return the key of the advisory lock. Only the manager that holds the lock does a round."""
        return int.from_bytes(sha256(f"jobnik {cls.name}".encode()).digest()[:8], signed=True)

    async def is_due(self, connection: Connection) -> bool:
        """Ask, in one statement that needs no lock, whether there is work. Otherwise, this manager skips the round."""
        del connection
        return True

    async def rest(self) -> None:
        """Wait for the next round."""
        await asyncio.sleep(self.pause.total_seconds())

    @abstractmethod
    async def round(self, connection: Connection) -> int:
        """Do all pending work in small transactions. Return the amount, in a unit of the maintenance task."""

    async def run(self, database: Database, progress: Callable[[], None]) -> None:
        """Do rounds on a connection of its own until cancelled, and report progress after each.

        After a failed round, it tries again on a new connection.
        """
        self.progress = progress
        metrics.MAINTENANCE_ROUNDS.labels(self.name)
        failures = metrics.MAINTENANCE_FAILURES.labels(self.name)
        pause = self.pause
        while True:
            try:
                async with database.maintenance_connection() as connection:
                    while True:
                        await self.run_once(connection)
                        progress()
                        pause = self.pause
                        await self.rest()
            except DatabaseError as error:
                log.warning(
                    "maintenance task interrupted; the next round tries again", task=self.name, error=str(error)
                )
            except Exception:  # a bug in one round must not stop the maintenance task
                log.exception("maintenance task failed; the next round tries again", task=self.name)
            failures.inc()
            progress()
            pause = min(2 * pause, LONGEST_PAUSE)
            await asyncio.sleep(pause.total_seconds())

    async def run_once(self, connection: Connection) -> None:
        """Do one round, unless another manager is doing one now. After an error, the connection still has the lock."""
        if not await self.is_due(connection):
            metrics.MAINTENANCE_ROUNDS.labels(self.name).inc()
            return
        if not await sql.maintenance_begin(connection, key=self.key()):
            return
        started = time_ns()
        done = await self.round(connection)
        await sql.maintenance_end(connection, key=self.key())
        metrics.MAINTENANCE_ROUNDS.labels(self.name).inc()
        if done:  # most rounds find nothing to do, and their spans would only fill the trace storage
            tracer.start_span(self.name, attributes={"jobnik.maintenance.done": done}, start_time=started).end()
