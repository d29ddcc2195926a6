"""A manager with its database: asked over HTTP, looked into and moved on in time by SQL.

The manager's duties are done here, when time passes in the model and at no other moment: whoever has a duty's lock does
it, and here all of them are had. So nobody has to wait for a round, and the same requests lead to the same every time.
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
import httpx2
from reference_manager.engine.engine import Engine
from reference_manager.engine.maintenance.maintenance_task import Duty
from reference_manager.store.pool import Connection, Database, sql

from tests.model.entities import Answer
from tests.support.truths import falsehoods

tables: Any = aiosql.from_path(  # pyright: ignore[reportUnknownMemberType] - aiosql types its own parameters loosely
    Path(__file__).with_name("tables.sql"), "asyncpg"
)


class Moment(NamedTuple):
    """Something that comes with time.

    Args:
        duties: The names of those that it brings.
        arrive: Brings the moment of some tasks; None: it is of no task.
    """

    duties: Sequence[str]
    arrive: Any = None


MOMENTS = {
    "leases": Moment(["lease sweeper"], tables.end_leases),
    "deadlines": Moment(["lease sweeper"], tables.end_deadlines),
    "delays": Moment(["delayed tasks"], tables.end_delays),
    "duties": Moment(["counter folding", "aborted tasks", "lease sweeper", "delayed tasks"]),
}


class Site:
    """Two clients of one manager, and its tables.

    Args:
        runner: Runs what is asynchronous to its end.
        connection: To the database; it holds the locks of the duties.
        duties: By their names.
        clients: Of the manager.
    """

    def __init__(
        self,
        runner: asyncio.Runner,
        connection: Connection,
        duties: Mapping[str, Duty],
        clients: Sequence[httpx2.Client],
    ) -> None:
        self._runner = runner
        self._connection = connection
        self._duties = duties
        self._clients = clients

    @classmethod
    @contextmanager
    def opened(cls, manager_url: str, database_url: str) -> Generator[Self]:
        """Begin, with the duties; the manager has them again at the end."""
        with (
            httpx2.Client(base_url=manager_url, timeout=15) as one,
            httpx2.Client(base_url=manager_url, timeout=15) as other,
            asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner,
        ):
            stack = AsyncExitStack()
            try:
                connection, duties = runner.run(_take_over(stack, database_url))
                yield cls(runner, connection, duties, (one, other))
            finally:
                runner.run(stack.aclose())

    def ask(self, client: int, method: str, path: str, body: object = None, prefer: str | None = None) -> Answer:
        """Send a request by one of the clients."""
        headers = {"Prefer": prefer} if prefer else {}
        response = self._clients[client].request(method, path, json=body, headers=headers)
        content = response.json() if response.content else None
        return Answer(response.status_code, content, response.headers.get("Preference-Applied"))

    def pass_time(self, moment: str, tasks: Sequence[str]) -> Answer:
        """A moment comes, and the duties that it brings are done."""
        self._runner.run(self._pass_time(MOMENTS[moment], tasks))
        return Answer(204, None)

    async def _pass_time(self, moment: Moment, tasks: Sequence[str]) -> None:
        if moment.arrive:
            await moment.arrive(self._connection, tasks=tasks)
        for duty in moment.duties:
            await self._duties[duty].round(self._connection)

    def queue(self, name: str) -> Answer:
        """Where every task of the jobs of that name stands; see ``tables.sql``."""
        return Answer(200, json.loads(self._runner.run(tables.queue(self._connection, name=name))))

    def falsehoods(self) -> Sequence[str]:
        """What the tables say that cannot be true."""
        # The pool's connection has all that a connection has, and says so to no type checker.
        connection = cast("asyncpg.Connection[asyncpg.Record]", self._connection)
        return self._runner.run(falsehoods(connection))


async def _take_over(stack: AsyncExitStack, database_url: str) -> tuple[Connection, Mapping[str, Duty]]:
    """A connection that has the locks of all duties, and the duties by their names."""
    database = await stack.enter_async_context(
        Database.connect(database_url, connections=2, patience=timedelta(seconds=5))
    )
    connection = await stack.enter_async_context(database.connection())
    duties = {duty.name: duty for duty in Engine(database, stale_after=timedelta(minutes=30)).duties}
    for duty in duties.values():
        while not await sql.duty_begin(connection, key=duty.key):
            pass  # the manager is at it, for a moment
    return connection, duties
