"""Notifications of new work, for the waiting claims of this manager and of all others on the same database.

A notification may get lost: a manager may crash before it sends one, or a connection pooler may drop it. Waiting claims
therefore also poll, and notifications only make them faster.
"""

import asyncio
from collections.abc import Callable, Iterable
from uuid import uuid4

import structlog

from reference_manager.store.errors import DatabaseError
from reference_manager.store.pool import Database, sql

log = structlog.stdlib.get_logger(__name__)

CHANNEL = "jobnik_work"
SEND_INTERVAL = 0.01
"""Seconds between two notifications. Each holds a lock on the whole database until its commit is on disk."""
RECONNECT_DELAY = 1.0
"""Seconds."""
ECHO_TIMEOUT = 5.0
"""Seconds until a missing echo means that notifications do not arrive."""


class Notifications:
    """Carries the names of stage types that have new work."""

    def __init__(self) -> None:
        self._sender = uuid4().hex
        self._listeners: list[Callable[[str | None], None]] = []
        self._unsent: set[str] = set()
        self._pending = asyncio.Event()
        self._echo = asyncio.Event()
        self.received = False
        """Whether this manager receives notifications of other managers."""

    def listen(self, listener: Callable[[str | None], None]) -> None:
        """Add a listener, called with each stage type that has new work, or with None if some may have been missed."""
        self._listeners.append(listener)

    def notify(self, stage_types: Iterable[str]) -> None:
        """Announce new work of these stage types."""
        for stage_type in stage_types:
            self._emit(stage_type)
            self._unsent.add(stage_type)
            self._pending.set()

    async def run(self, database: Database) -> None:
        """Exchange notifications with the other managers on this database until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._send(database))
            group.create_task(self._receive(database))

    def _emit(self, stage_type: str | None) -> None:
        for listener in self._listeners:
            listener(stage_type)

    async def _send(self, database: Database) -> None:
        while True:
            await self._pending.wait()
            self._pending.clear()
            stage_types, self._unsent = self._unsent, set()
            try:
                async with database.connection(for_workers=True) as connection:
                    await sql.work_notify(
                        connection, channel=CHANNEL, sender=self._sender, stage_types=list(stage_types)
                    )
            except DatabaseError as error:
                log.warning("notifying other managers failed", error=str(error))
            await asyncio.sleep(SEND_INTERVAL)

    async def _receive(self, database: Database) -> None:
        while True:
            try:
                async with database.listener(CHANNEL, self._on_notification) as closed:
                    await self._check_delivery(database)
                    self._emit(None)
                    await closed.wait()
            except DatabaseError as error:
                log.warning("listening for notifications failed", error=str(error))
            self.received = False
            await asyncio.sleep(RECONNECT_DELAY)

    async def _check_delivery(self, database: Database) -> None:
        """Send an empty notification and wait for its echo: poolers in transaction mode drop notifications silently."""
        self._echo.clear()
        async with database.connection(for_workers=True) as connection:
            await sql.work_notify(connection, channel=CHANNEL, sender=self._sender, stage_types=[""])
        try:
            async with asyncio.timeout(ECHO_TIMEOUT):
                await self._echo.wait()
            self.received = True
        except TimeoutError:
            log.warning(
                "notifications do not arrive; waiting claims poll every second",
                likely_cause="a connection pooler in transaction mode between the manager and PostgreSQL",
            )

    def _on_notification(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        sender, _, stage_type = str(payload).partition(" ")
        if sender != self._sender:
            self._emit(stage_type)
        elif not stage_type:
            self._echo.set()
