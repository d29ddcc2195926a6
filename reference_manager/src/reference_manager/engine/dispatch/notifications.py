"""Word of new work, to everybody who waits for it, in this manager and beside it.

A word may get lost (a manager dies before it has spoken, a pooler swallows it): whoever waits also looks for himself,
now and then. So nothing depends on it but speed.
"""

import asyncio
from collections.abc import Callable, Iterable
from uuid import uuid4

import structlog

from reference_manager.store.errors import DatabaseError
from reference_manager.store.pool import Database, sql

log = structlog.stdlib.get_logger(__name__)

CHANNEL = "jobnik_work"
PAUSE = 0.01
"""Seconds between two notifications: each takes a lock of the whole database until its commit is on disk."""
CONNECT_AGAIN = 1.0
ECHO_LIMIT = 5.0
"""Seconds."""


class Notifications:
    """Carries the names of stage types for which there is work."""

    def __init__(self) -> None:
        self._name = uuid4().hex
        self._listeners: list[Callable[[str | None], None]] = []
        self._unsent: set[str] = set()
        self._pending = asyncio.Event()
        self._echo = asyncio.Event()
        self.arrive = False
        """Whether words of other managers reach this one."""

    def listen(self, listener: Callable[[str | None], None]) -> None:
        """Call this with each stage type that there is work for; None: anything may have been missed."""
        self._listeners.append(listener)

    def notify(self, stage_types: Iterable[str]) -> None:
        """There is work for these types."""
        for stage_type in stage_types:
            self._emit(stage_type)
            self._unsent.add(stage_type)
            self._pending.set()

    async def run(self, database: Database) -> None:
        """Exchange words with the other managers on this database, until cancelled."""
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
                    await sql.work_notify(connection, channel=CHANNEL, sender=self._name, stage_types=list(stage_types))
            except DatabaseError as error:
                log.warning("notification of other managers failed", error=str(error))
            await asyncio.sleep(PAUSE)

    async def _receive(self, database: Database) -> None:
        while True:
            try:
                async with database.listener(CHANNEL, self._on_notification) as closed:
                    await self._check_delivery(database)
                    self._emit(None)
                    await closed.wait()
            except DatabaseError as error:
                log.warning("listening for notifications failed", error=str(error))
            self.arrive = False
            await asyncio.sleep(CONNECT_AGAIN)

    async def _check_delivery(self, database: Database) -> None:
        """Hear one's own voice: poolers in transaction mode swallow notifications without a word."""
        self._echo.clear()
        async with database.connection(for_workers=True) as connection:
            await sql.work_notify(connection, channel=CHANNEL, sender=self._name, stage_types=[""])
        try:
            async with asyncio.timeout(ECHO_LIMIT):
                await self._echo.wait()
            self.arrive = True
        except TimeoutError:
            log.warning(
                "notifications do not arrive; waiting claims poll every second",
                likely_cause="a connection pooler in transaction mode between the manager and PostgreSQL",
            )

    def _on_notification(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        sender, _, stage_type = str(payload).partition(" ")
        if sender != self._name:
            self._emit(stage_type)
        elif not stage_type:
            self._echo.set()
