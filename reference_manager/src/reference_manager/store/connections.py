"""Connections to PostgreSQL: to the host that accepts writes, with a deadline for every statement."""

import asyncio
from collections.abc import Coroutine, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import aiosql
import asyncpg
from asyncpg.connect_utils import SessionAttribute

from reference_manager.store.errors import DRIVER_ERRORS, DatabaseUnavailableError

Answer = TypeVar("Answer")

# Any, because aiosql creates the methods from the files: await sql.job_get(connection, id=…, with_stages=…).
sql: Any = aiosql.from_path(  # pyright: ignore[reportUnknownMemberType] - aiosql types its own parameters loosely
    Path(__file__).parent / "queries",
    "asyncpg",
    mandatory_parameters=False,  # lists of parameters that do not fit into one line are left out
)

CONNECT_TIMEOUT = timedelta(seconds=4)
"""How long it may take to open a connection. Less than a request waits for one by default."""
STATEMENT_TIMEOUT = timedelta(seconds=15)
"""How long a statement may run. PostgreSQL then cancels it, and the connection stays open."""
ANSWER_MARGIN = timedelta(seconds=3)
"""How much longer the manager waits for an answer. Then it replaces the connection as silent."""

_answer_timeout: ContextVar[timedelta | None] = ContextVar("answer_timeout", default=STATEMENT_TIMEOUT + ANSWER_MARGIN)


@contextmanager
def answers_within(limit: timedelta | None) -> Generator[None]:
    """Wait this long for the answer to each statement in the block; None: without limit."""
    token = _answer_timeout.set(limit)
    try:
        yield
    finally:
        _answer_timeout.reset(token)


if TYPE_CHECKING:
    _Base = asyncpg.Connection[asyncpg.Record]
else:
    _Base = asyncpg.Connection


class DeadlineConnection(_Base):
    """A connection that closes itself if the answer to a statement does not arrive in time; see ``answers_within``.

    The driver's own timeout would send a request to cancel the statement, and then wait for the silent connection
    again. PostgreSQL would also stop waiting for a synchronous standby, and report a commit that may be lost.
    """

    async def execute(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401, D102 - as in the base class
        return await self._within_deadline(super().execute(*args, **options))

    async def fetch(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401, D102 - as in the base class
        return await self._within_deadline(super().fetch(*args, **options))

    async def fetchrow(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401, D102 - as in the base class
        return await self._within_deadline(super().fetchrow(*args, **options))

    async def fetchval(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401, D102 - as in the base class
        return await self._within_deadline(super().fetchval(*args, **options))

    async def _within_deadline(self, statement: Coroutine[Any, Any, Answer]) -> Answer:
        limit = _answer_timeout.get()
        if limit is None:
            return await statement
        late = False

        def give_up() -> None:
            nonlocal late
            late = True
            self.terminate()

        timer = asyncio.get_running_loop().call_later(limit.total_seconds(), give_up)
        try:
            return await statement
        except DRIVER_ERRORS as error:
            if late:
                message = f"PostgreSQL did not answer within {limit.total_seconds():.0f} s; the connection was closed"
                raise DatabaseUnavailableError(message) from error
            raise
        finally:
            timer.cancel()


class Connector:
    """Opens connections to the host of a URL that accepts writes.

    Args:
        url: The URL of the database. It may list several hosts, such as a primary and its standbys.
        session: Settings of each session. They are set by a statement, because connection poolers refuse most of them
            as parameters of a connection.
    """

    def __init__(self, url: str, session: Mapping[str, str]) -> None:
        self._hosts = _hosts(url)
        self._session = session
        self._first = 0
        """The index of the host to try first: the last one that accepted writes."""

    async def connect(self, *_args: object, **_options: object) -> DeadlineConnection:
        """Open a connection. The arguments, those of the driver's pool, are ignored.

        Raises:
            DatabaseUnavailableError: No host accepts writes; ``__cause__`` is the error of the last one.
        """
        limit = CONNECT_TIMEOUT / len(self._hosts)
        errors: list[tuple[str, Exception]] = []
        first = self._first
        for index in (*range(first, len(self._hosts)), *range(first)):
            # If the caller stops waiting for a silent host, the next attempt starts with the one after it.
            self._first = (index + 1) % len(self._hosts)
            host, url = self._hosts[index]
            try:
                async with asyncio.timeout(limit.total_seconds()):
                    connection = await self._open(url)
            except TimeoutError as error:
                errors.append(
                    (host, error if str(error) else TimeoutError(f"no answer within {limit.total_seconds():g} s"))
                )
            except DRIVER_ERRORS as error:
                errors.append((host, error))
            else:
                self._first = index
                return connection
        reasons = [f"{host}: {error}" if host else str(error) for host, error in errors]
        raise DatabaseUnavailableError("; ".join(reasons)) from errors[-1][1]

    async def _open(self, url: str) -> DeadlineConnection:
        try:
            connection = await asyncpg.connect(
                url,
                connection_class=DeadlineConnection,
                target_session_attrs=SessionAttribute.read_write,
                # Statements are few. The driver would close evicted ones on the server, and wait without a limit.
                statement_cache_size=1000,
                max_cached_statement_lifetime=0,
            )
        except asyncpg.TargetServerAttributeNotMatched as error:
            raise asyncpg.ReadOnlySQLTransactionError("the server is read-only, such as a standby") from error
        if self._session:
            try:
                names, values = list(self._session), list(self._session.values())
                await sql.session_configure(connection, names=names, settings=values)
            except BaseException:
                connection.terminate()
                raise
        return connection


def _hosts(url: str) -> list[tuple[str, str]]:
    """Return each host of a URL, with the URL of this host alone. The driver itself has one deadline for all hosts."""
    parts = urlsplit(url)
    account, at, hosts = parts.netloc.rpartition("@")
    return [(host, urlunsplit(parts._replace(netloc=f"{account}{at}{host}"))) for host in hosts.split(",")]
