"""Errors of the database. ``translated_errors`` converts every error of the driver to one of these.

DatabaseError
├── DatabaseBusyError         the database is busy: the same request may succeed shortly
│   └── LockTimeoutError      another session held a lock for too long
├── DatabaseUnavailableError  the database cannot be reached or used at present: the same request may succeed later
└── UnsupportedDatabaseError  this version cannot use the database; the message says what to do
"""

from collections.abc import Generator
from contextlib import contextmanager

import asyncpg


class DatabaseError(Exception):
    """The database failed; ``__cause__`` is the error of the driver."""


class DatabaseBusyError(DatabaseError):
    """The database has no free connection, a lock was not granted in time, or a statement took too long."""


class LockTimeoutError(DatabaseBusyError):
    """Another session held a lock for longer than ``lock_timeout``."""


class DatabaseUnavailableError(DatabaseError):
    """The database cannot be reached, did not answer, is read-only, or has run out of a resource."""


class UnsupportedDatabaseError(DatabaseError):
    """The server is too old, the schema is too new, or the server rejects the user or a statement."""


DRIVER_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # raised by the driver if the server closes the connection at the wrong moment
    OSError,
)

_BUSY = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.QueryCanceledError,  # by statement_timeout
    asyncpg.TooManyConnectionsError,
    asyncpg.InvalidCachedStatementError,  # a newer manager has changed a table
    asyncpg.OutdatedSchemaCacheError,
)
_UNAVAILABLE = (
    asyncpg.PostgresConnectionError,  # class 08
    asyncpg.InsufficientResourcesError,  # class 53
    asyncpg.OperatorInterventionError,  # class 57: shutdown, crash, recovery
    asyncpg.PostgresSystemError,  # class 58
    asyncpg.ReadOnlySQLTransactionError,  # a standby, or a server without disk space
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.InternalClientError,
    OSError,
)


@contextmanager
def translated_errors() -> Generator[None]:
    """Raise the errors of the driver as ``DatabaseError``, with the same message."""
    try:
        yield
    except DRIVER_ERRORS as raised:
        error = _first_error(raised)
        if isinstance(error, DatabaseError):
            raise error from error.__cause__
        raise _kind(error)(str(error)) from error


def _first_error(error: BaseException) -> BaseException:
    """Return the error that ended a connection, if this one was raised when the connection was used afterwards."""
    before = error.__context__
    if isinstance(error, asyncpg.InterfaceError) and isinstance(before, (DatabaseError, *DRIVER_ERRORS)):
        return _first_error(before)
    return error


def _kind(error: BaseException) -> type[DatabaseError]:
    match error:
        case asyncpg.InterfaceError() if not isinstance(error, ValueError):
            return DatabaseUnavailableError  # the connection is closed
        case asyncpg.LockNotAvailableError():
            return LockTimeoutError
        case error if isinstance(error, _BUSY):
            return DatabaseBusyError
        case error if isinstance(error, _UNAVAILABLE):
            return DatabaseUnavailableError
        case _:
            return DatabaseError
