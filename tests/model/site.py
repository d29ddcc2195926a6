"""Two managers with their database: asked over HTTP, looked into and moved on in time by SQL.

The managers' maintenance tasks run here, when time passes in the model and at no other moment: the site holds the locks
of all of them. No test waits for a round, and the same requests lead to the same result every time.
"""

import asyncio
import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, Self, cast

import aiosql
import asyncpg
import httpcore2
from reference_manager.engine.engine import Engine
from reference_manager.engine.maintenance.maintenance_task import MaintenanceTask
from reference_manager.store.pool import Connection, Database, sql

from tests.model.entities import Answer
from tests.support.invariants import violations
from tests.support.plain_http import NO_CERTIFICATES

tables: Any = aiosql.from_path(  # pyright: ignore[reportUnknownMemberType] - aiosql types its own parameters loosely
    Path(__file__).with_name("tables.sql"), "asyncpg"
)

TIMEOUTS = {"timeout": dict.fromkeys(("connect", "read", "write", "pool"), 15.0)}
"""Seconds."""


class Moment(NamedTuple):
    """An event without a request.

    Args:
        maintenance: The names of the maintenance tasks that run then.
        arrive: Lets the moment of some tasks come; None if it concerns no task.
    """

    maintenance: Sequence[str]
    arrive: Any = None


MOMENTS = {
    "leases": Moment(["lease sweeper"], tables.end_leases),
    "deadlines": Moment(["lease sweeper"], tables.end_deadlines),
    "delays": Moment(["delayed tasks"], tables.end_delays),
    "maintenance": Moment(["counter folding", "aborted tasks", "deleted jobs", "lease sweeper", "delayed tasks"]),
}


class Site:
    """Two clients, each of its own manager, and the database that the managers share.

    Args:
        runner: Runs coroutines.
        connection: To the database; it holds the locks of the maintenance tasks.
        maintenance: The maintenance tasks by their names.
        connections: To the managers.
        manager_urls: The address of each client's manager.
    """

    def __init__(
        self,
        runner: asyncio.Runner,
        connection: Connection,
        maintenance: Mapping[str, MaintenanceTask],
        connections: httpcore2.ConnectionPool,
        manager_urls: Sequence[str],
    ) -> None:
        self._runner = runner
        self._connection = connection
        self._maintenance = maintenance
        self._connections = connections
        self._manager_urls = manager_urls

    @classmethod
    @contextmanager
    def opened(cls, manager_urls: tuple[str, str], database_url: str) -> Generator[Self]:
        """Begin, and take over the maintenance tasks; the managers have them again at the end."""
        # Without httpx2, whose client takes more than half of the time of a request.
        with (
            httpcore2.ConnectionPool(NO_CERTIFICATES) as connections,
            asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner,
        ):
            stack = AsyncExitStack()
            try:
                connection, maintenance = runner.run(_take_over(stack, database_url))
                yield cls(runner, connection, maintenance, connections, manager_urls)
            finally:
                runner.run(stack.aclose())

    def ask(self, client: int, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """Send a request by one of the clients."""
        content = None if body is None else json.dumps(body).encode()
        kind = {} if content is None else {"Content-Type": "application/json"}
        response = self._connections.request(
            method,
            f"{self._manager_urls[client]}{path}",
            headers=[*(kind | headers).items()],
            content=content,
            extensions=TIMEOUTS,
        )
        applied = [value.decode() for name, value in response.headers if name.lower() == b"preference-applied"]
        return Answer(response.status, json.loads(response.content) if response.content else None, *applied)

    def pass_time(self, moment: str, tasks: Sequence[str]) -> Answer:
        """Let a moment come, and run its maintenance tasks."""
        self._runner.run(self._pass_time(MOMENTS[moment], tasks))
        return Answer(204, None)

    async def _pass_time(self, moment: Moment, tasks: Sequence[str]) -> None:
        if moment.arrive:
            await moment.arrive(self._connection, tasks=tasks)
        for name in moment.maintenance:
            await self._maintenance[name].round(self._connection)

    def queue(self, name: str) -> Answer:
        """The place in the queue of every task of the jobs of that name; see ``tables.sql``."""
        return Answer(200, json.loads(self._runner.run(tables.queue(self._connection, name=name))))

    def contradictions(self) -> Sequence[str]:
        """Contradictions in the tables, such as "2 false summaries"."""
        # A connection of the pool has the methods of a connection, but type checkers do not know that.
        connection = cast("asyncpg.Connection[asyncpg.Record]", self._connection)
        return self._runner.run(violations(connection))


async def _take_over(stack: AsyncExitStack, database_url: str) -> tuple[Connection, Mapping[str, MaintenanceTask]]:
    """A connection that holds the locks of all maintenance tasks, and these tasks by their names."""
    database = await stack.enter_async_context(
        Database.connect(database_url, connections=2, acquire_timeout=timedelta(seconds=5))
    )
    connection = await stack.enter_async_context(database.connection())
    maintenance = {task.name: task for task in Engine(database, stale_after=timedelta(minutes=30)).maintenance}
    for task in maintenance.values():
        while not await sql.maintenance_begin(connection, key=task.key()):
            pass  # a manager is at it, for a moment
    return connection, maintenance
