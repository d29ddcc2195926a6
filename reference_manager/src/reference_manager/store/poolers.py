"""Detects connection poolers that do not keep sessions. The manager cannot work behind them."""

from collections.abc import Iterator
from contextlib import AsyncExitStack
from uuid import uuid4

import asyncpg

from reference_manager.store.connections import Connector, DeadlineConnection, sql
from reference_manager.store.errors import DatabaseError, UnsupportedDatabaseError, translated_errors

ATTEMPTS = 3
"""How many times to look for another session. A busy pooler may return the same one by chance."""

_REFUSED = (
    "A connection pooler in {mode} mode is between the manager and PostgreSQL. The manager keeps settings, locks and "
    "notifications in its sessions. Use the pooler in session mode (PgBouncer: pool_mode = session), or connect to "
    "PostgreSQL directly."
)


_SHARED = (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError)
"""Errors of prepared statements that are in another session, or that another connection has prepared."""


async def check_pooler(url: str) -> None:
    """Check that each connection keeps its session.

    While a second connection is in a transaction, a pooler in transaction mode gives the first one another session.

    Raises:
        UnsupportedDatabaseError: A connection pooler shares sessions between connections.
        DatabaseError: The database cannot be reached.
    """
    try:
        with translated_errors():
            for _ in range(ATTEMPTS):
                if not await _keeps_session(Connector(url, {})):
                    raise UnsupportedDatabaseError(_REFUSED.format(mode="transaction"))
    except DatabaseError as error:
        causes = list(_causes(error))
        if any(isinstance(cause, _SHARED) for cause in causes):
            raise UnsupportedDatabaseError(_REFUSED.format(mode="transaction")) from error
        if any(isinstance(cause, asyncpg.ProtocolViolationError) and "statement" in str(cause) for cause in causes):
            raise UnsupportedDatabaseError(_REFUSED.format(mode="statement")) from error
        raise


def _causes(error: BaseException) -> Iterator[BaseException]:
    while error.__cause__ is not None:
        error = error.__cause__
        yield error


async def _keeps_session(connector: Connector) -> bool:
    mark = uuid4().hex
    async with AsyncExitStack() as stack:
        first, second = [await _connection(stack, connector) for _ in range(2)]
        # Within a transaction, every pooler keeps the session, so that the driver's prepared statements work.
        async with first.transaction():
            await sql.session_mark(first, mark=mark)
        async with second.transaction(), first.transaction():
            return await sql.session_read_mark(first) == mark


async def _connection(stack: AsyncExitStack, connector: Connector) -> DeadlineConnection:
    connection = await connector.connect()
    stack.callback(connection.terminate)
    return connection
