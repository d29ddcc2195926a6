"""Notifications of new work, for the waiting claims of this manager and of all others on the same database.

A notification may get lost: a manager may crash before it sends one, or a connection pooler may drop it. Waiting claims
therefore also poll, and notifications only make them faster.
"""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from uuid import uuid4

import structlog

from reference_manager.store.connections import DeadlineConnection
from reference_manager.store.errors import DatabaseError
from reference_manager.store.pool import Connection, Database, sql

log = structlog.stdlib.get_logger(__name__)

CHANNEL = "jobnik_work"
SEND_INTERVAL = 0.01
"""Seconds between two notifications. Each holds a lock on the whole database until its commit is on disk."""
RECONNECT_DELAY = 1.0
"""Seconds."""
ECHO_INTERVAL = 10.0
"""Seconds between two notifications that a manager sends to itself. PostgreSQL closes the connection after 20 s."""
ECHO_TIMEOUT = 5.0
"""Seconds until a missing echo means that notifications do not arrive."""
MAX_WAIT = 30.0
"""Seconds that the sender waits for something to send before it reports progress."""


class Notifications:
    """Carries the names of stage types that have new work."""

    def __init__(self) -> None:
        self._sender = uuid4().hex
        self._listeners: list[Callable[[str | None], None]] = []
        self._channels: dict[str, Callable[..., None]] = {}
        self._unsent: set[str] = set()
        self._pending = asyncio.Event()
        self._echo = asyncio.Event()
        self.received = False
        """Whether this manager receives notifications of other managers."""

    def listen(self, listener: Callable[[str | None], None]) -> None:
        """Add a listener, called with each stage type that has new work, or with None if some may have been missed."""
        self._listeners.append(listener)

    def listen_to(self, channel: str, callback: Callable[..., None]) -> None:
        """Listen to another channel on the same connection, as ``Database.listener`` does."""
        self._channels[channel] = callback

    def notify(self, stage_types: Iterable[str]) -> None:
        """Announce new work of these stage types."""
        for stage_type in stage_types:
            self._emit(stage_type)
            self._unsent.add(stage_type)
            self._pending.set()

    def _emit(self, stage_type: str | None) -> None:
        for listener in self._listeners:
            listener(stage_type)

    async def send(self, database: Database, progress: Callable[[], None]) -> None:
        """Send notifications to the other managers on this database until cancelled."""
        while True:
            progress()
            with suppress(TimeoutError):
                async with asyncio.timeout(MAX_WAIT):
                    await self._pending.wait()
            if not self._unsent:
                continue
            self._pending.clear()
            stage_types, self._unsent = self._unsent, set()
            try:
                async with database.connection(for_workers=True) as connection:
                    await self._notify(connection, stage_types)
            except DatabaseError as error:
                log.warning("notifying other managers failed", error=str(error))
            await asyncio.sleep(SEND_INTERVAL)

    async def receive(self, database: Database, progress: Callable[[], None]) -> None:
        """Receive notifications of the other managers on this database until cancelled."""
        while True:
            progress()
            try:
                async with database.listener(CHANNEL, self._on_notification) as connection:
                    for channel, callback in self._channels.items():
                        await connection.add_listener(channel, callback)
                    self._emit(None)
                    while await self._arrive(connection):
                        self.received = True
                        progress()
                        await asyncio.sleep(ECHO_INTERVAL)
                    log.warning(
                        "notifications do not arrive; waiting claims poll every second",
                        likely_cause="the connection is silent, or a pooler drops notifications",
                    )
            except DatabaseError as error:
                log.warning("listening for notifications failed", error=str(error))
            self.received = False
            await asyncio.sleep(RECONNECT_DELAY)

    async def _arrive(self, connection: DeadlineConnection) -> bool:
        """Send an empty notification on the connection that listens, and return whether its echo arrives."""
        self._echo.clear()
        try:
            async with asyncio.timeout(ECHO_TIMEOUT):
                await self._notify(connection, [""])
                await self._echo.wait()
        except TimeoutError:
            return False
        return True

    async def _notify(self, connection: "Connection | DeadlineConnection", stage_types: Iterable[str]) -> None:
        await sql.work_notify(connection, channel=CHANNEL, sender=self._sender, stage_types=list(stage_types))

    def _on_notification(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        sender, _, stage_type = str(payload).partition(" ")
        if sender != self._sender:
            self._emit(stage_type)
        elif not stage_type:
            self._echo.set()
