"""Errors of the database. ``translated_errors`` converts every error of the driver to one of these.

DatabaseError
├── DatabaseBusyError         the database is busy: the same request may succeed shortly
└── UnsupportedDatabaseError  this version cannot use the database; the message says what to do
"""

from collections.abc import Generator
from contextlib import contextmanager

import asyncpg


class DatabaseError(Exception):
    """The database failed or cannot be reached; ``__cause__`` is the error of the driver."""


class DatabaseBusyError(DatabaseError):
    """The database has no free connection, or a lock was not granted in time."""


class UnsupportedDatabaseError(DatabaseError):
    """The server is too old, the schema is too new, or the server rejects the user or a statement."""


_BUSY = (
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
)
_FAILED = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # raised by the driver when the server closes the connection during a handshake
    OSError,
)


@contextmanager
def translated_errors() -> Generator[None]:
    """Raise the errors of the driver as ``DatabaseError``, with the same message."""
    try:
        yield
    except _BUSY as error:
        raise DatabaseBusyError(str(error)) from error
    except _FAILED as error:
        raise DatabaseError(str(error)) from error
