"""What the commands that work on a database share."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

from pydantic import TypeAdapter, ValidationError

from reference_manager.server.process import prepare
from reference_manager.store.pool import Database

_CONNECTIONS: Final = 2
_CONNECTION_TIMEOUT: Final = timedelta(seconds=10)
_DURATION: Final = TypeAdapter(timedelta)


@asynccontextmanager
async def open_database(url: str) -> AsyncGenerator[Database]:
    """Migrate a database, and connect to it.

    Raises:
        StartError, DatabaseError: The database cannot be used.
    """
    await prepare(url)
    async with Database.connect(url, connections=_CONNECTIONS, acquire_timeout=_CONNECTION_TIMEOUT) as database:
        yield database


def parse_duration(text: str, shortest: timedelta, longest: timedelta) -> timedelta | None:
    """Return a duration in ISO 8601, such as ``P30D``; None: it is none, or not within these limits."""
    try:
        duration = _DURATION.validate_python(text)
    except ValidationError:
        return None
    return duration if shortest <= duration <= longest else None
