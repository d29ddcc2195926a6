"""Hands tasks over to waiting claims in the transaction that makes them claimable.

Without this, a new task would reach a waiting worker after two commits: that of its creation, and that of its claim.
The claim runs in the same order and under the same conditions as any other: if older tasks are claimable, it gets
those.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from uuid import UUID

from reference_manager.engine.dispatch.claims import ClaimBatcher, Reservation
from reference_manager.engine.dispatch.notifications import Notifications
from reference_manager.store.errors import LockTimeoutError, translated_errors
from reference_manager.store.pool import Connection, Database, Record

REMEMBERED_STAGES = 5000
"""The maximum number of stages whose types a manager remembers."""


class Transaction:
    """A transaction that may make tasks claimable.

    Args:
        connection: The connection of the transaction.
        batchers: The batchers of the claims that may get tasks in this transaction, by stage type.
    """

    def __init__(self, connection: Connection, batchers: Mapping[str, ClaimBatcher]) -> None:
        self.connection = connection
        self._batchers = batchers
        self.reservations: list[Reservation] = []
        self.announced: set[str] = set()

    async def announce(self, stage_types: Iterable[str], tasks: int | None = None) -> None:
        """Hand tasks of these types over to claims that wait at this manager. Others are notified after the commit.

        Args:
            stage_types: Stage types that have claimable tasks because of this transaction.
            tasks: The number of tasks of each type, or an upper bound. None: it is not known.
        """
        for stage_type in stage_types:
            batcher = self._batchers.get(stage_type)
            reservation = batcher.reserve(tasks) if batcher else None
            if reservation is None:
                self.announced.add(stage_type)
                continue
            self.reservations.append(reservation)
            await reservation.claim(self.connection)
            if reservation.leaves_tasks:
                self.announced.add(stage_type)


class Handover:
    """Starts transactions that may make tasks claimable.

    Args:
        database: The database.
        batchers: The batchers of the waiting claims, by stage type.
        notifications: Wakes all other waiting claims.
    """

    def __init__(self, database: Database, batchers: Mapping[str, ClaimBatcher], notifications: Notifications) -> None:
        self._database = database
        self._batchers = batchers
        self._notifications = notifications
        self._stage_types: dict[UUID, str] = {}
        self.used = asyncio.Event()
        """Set after each transaction, which may have delayed tasks. Whoever waits for it clears it before."""

    def remember(self, stage_id: UUID, stage_type: str) -> None:
        """Remember the type of a stage, which never changes."""
        if len(self._stage_types) >= REMEMBERED_STAGES and stage_id not in self._stage_types:
            del self._stage_types[next(iter(self._stage_types))]
        self._stage_types[stage_id] = stage_type

    def stage_type(self, stage_id: UUID) -> str | None:
        """Return the type of a stage; None if this manager does not remember it."""
        return self._stage_types.get(stage_id)

    async def execute(
        self, connection: Connection, statement: str, arguments: Sequence[object], stage_type: str, tasks: int
    ) -> Sequence[Record] | None:
        """Execute a statement that makes tasks claimable, and claims tasks for the claims that wait at this manager.

        It commits by itself, so it takes one round trip where a transaction takes four. The claims are reserved while
        it runs, so it must not wait for locks.

        Args:
            connection: A connection without a transaction.
            statement: The statement. Its last parameters are those of ``claim_tasks`` after the stage type, and its
                rows have the columns of ``claim_tasks``.
            arguments: Its other arguments.
            stage_type: The type of the tasks.
            tasks: The number of tasks, or an upper bound.

        Returns:
            Its rows; None if nothing was executed, because no claim waits, or another session has locked something.
        """
        batcher = self._batchers.get(stage_type)
        reservation = batcher.reserve(tasks) if batcher else None
        if reservation is None:
            return None
        rows: Sequence[Record] | None = None
        try:
            with suppress(LockTimeoutError), translated_errors():
                rows = await connection.fetch(statement, *arguments, *reservation.arguments)
                reservation.read(rows)
        finally:
            reservation.end(committed=rows is not None)
            self.used.set()
        if rows and _has_claimed(rows) and reservation.leaves_tasks:
            self._notifications.notify([stage_type])
        return rows

    @asynccontextmanager
    async def transaction(self, *, for_workers: bool = False, several: bool = False) -> AsyncGenerator[Transaction]:
        """Run the block in a transaction.

        Args:
            for_workers: Whether to use the connection pool that is reserved for workers.
            several: Whether the block has several statements. The only statement of a block commits by itself, which
                saves two round trips, unless claims wait at this manager.
        """
        async with (
            self._database.connection(for_workers=for_workers) as connection,
            self.on(connection, several=several) as transaction,
        ):
            yield transaction

    @asynccontextmanager
    async def on(self, connection: Connection, *, several: bool = False) -> AsyncGenerator[Transaction]:
        """Run the block in a transaction of this connection. Otherwise like ``transaction``."""
        waiting = any(batcher.can_reserve for batcher in self._batchers.values())
        transaction = Transaction(connection, self._batchers if waiting else {})
        committed = False
        try:
            async with connection.transaction() if several or waiting else nullcontext():
                yield transaction
            committed = True
        finally:
            for reservation in transaction.reservations:
                reservation.end(committed=committed)
            self.used.set()
        self._notifications.notify(transaction.announced)


def _has_claimed(rows: Sequence[Record]) -> bool:
    """Return whether ``claim_tasks`` was called. Otherwise, the statement has made no task claimable."""
    return rows[-1]["claim"] is not None or rows[-1]["more"] is not None
