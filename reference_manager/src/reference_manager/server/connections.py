"""The connections of a manager, with limits for their number, their time, and the memory of unread responses.

A client that stops sending or reading costs a connection and a bounded amount of memory, for a bounded time. The
connections above the limit still reach the probes, so that an orchestrator does not restart a manager that is only
busy: every other request on them is refused, and they close after one response.
"""

import asyncio
import math
import resource
from datetime import timedelta
from typing import Protocol

import structlog

log = structlog.stdlib.get_logger(__name__)

SURPLUS = 64
"""Connections above the limit. If there are more, the oldest one without a request in progress is closed."""
MAX_UNSENT = 256 * 1024 * 1024
"""Unread bytes of responses, over all connections. If there are more, stalled clients are disconnected."""
CHECK_INTERVAL = timedelta(seconds=1)
OTHER_FILES = 64
"""The number of files and sockets that a manager has open besides connections to clients and to the database."""


class Connection(Protocol):
    """The part of a connection that the limits use."""

    def is_overdue(self, now: float) -> bool:
        """Return whether the client took too long to send its request."""
        ...

    def is_waiting_for_request(self) -> bool:
        """Return whether no request is in progress."""
        ...

    def unsent(self) -> int:
        """Return the number of bytes that the client has not accepted yet."""
        ...

    def stalled(self, now: float) -> float:
        """Return for how many seconds the client has not accepted any of these bytes."""
        ...

    def abort(self) -> None:
        """Close the connection at once."""
        ...


class Connections:
    """The connections of a manager.

    Args:
        limit: The number of connections that are served. Up to ``SURPLUS`` more are answered.
        client_timeout: How long a client may neither send nor accept anything that the manager waits for.
    """

    def __init__(self, limit: int, client_timeout: timedelta) -> None:
        self._limit = limit
        self.client_timeout = client_timeout
        # In the order in which they were opened.
        self._open: dict[Connection, None] = {}
        self._surplus: dict[Connection, None] = {}
        self._surplus_opened = 0
        """The number of surplus connections opened since the last check."""
        self._check_interval = min(CHECK_INTERVAL, client_timeout / 2).total_seconds()
        self._checked = math.inf
        """When the last check was, or was due and skipped."""
        self._skipped = False

    @property
    def are_full(self) -> bool:
        """Whether the next connection is above the limit."""
        return len(self._open) >= self._limit

    def add(self, connection: Connection, *, surplus: bool) -> None:
        """Add an open connection.

        Args:
            connection: The connection.
            surplus: Whether it is above the limit.
        """
        if not surplus:
            self._open[connection] = None
            return
        self._surplus[connection] = None
        self._surplus_opened += 1
        if len(self._surplus) > SURPLUS:
            waiting = (one for one in self._surplus if one.is_waiting_for_request())
            oldest = next(waiting, connection)
            del self._surplus[oldest]
            oldest.abort()

    def discard(self, connection: Connection) -> None:
        """Remove a closed connection."""
        self._open.pop(connection, None)
        self._surplus.pop(connection, None)

    def abort(self) -> None:
        """Close every connection at once."""
        for connection in (*self._open, *self._surplus):
            connection.abort()

    async def watch(self) -> None:
        """Close the connections of clients that take too long, until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(self._check_interval)
            # If this process was stopped or delayed, it first reads what clients have sent in the meantime.
            now = clock()
            self._skipped = not self._skipped and now - self._checked > 2 * self._check_interval
            self._checked = now
            if not self._skipped:
                self.check(now)

    def check(self, now: float) -> None:
        """Close the connections of clients that take too long, and stalled ones if too many bytes are unread."""
        if self._surplus_opened:
            log.warning("too many connections", limit=self._limit, above=self._surplus_opened)
            self._surplus_opened = 0
        timeout = self.client_timeout.total_seconds()
        stalled: list[tuple[float, Connection]] = []
        unsent = 0
        for connection in (*self._open, *self._surplus):
            seconds = connection.stalled(now)
            if connection.is_overdue(now):
                connection.abort()
            elif seconds > timeout:
                log.info("client disconnected: response not read", unsent_bytes=connection.unsent())
                connection.abort()
            else:
                unsent += connection.unsent()
                stalled.append((seconds, connection))
        if unsent > MAX_UNSENT:
            stalled.sort(key=lambda one: one[0])
            while unsent > MAX_UNSENT and stalled[-1][0] > 0:
                _, connection = stalled.pop()
                unsent -= connection.unsent()
                log.warning("client disconnected: too many unread bytes in total", unsent_bytes=connection.unsent())
                connection.abort()


def fit_open_files(connection_limit: int, database_connections: int) -> int:
    """Let the process open as many files as it needs, and return the number of connections that this allows.

    Args:
        connection_limit: The wanted number of connections.
        database_connections: The number of connections to the database.
    """
    others = SURPLUS + database_connections + OTHER_FILES
    wanted = connection_limit + others
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connection_limit
    log.warning("connection limit reduced: too few open files allowed", limit=soft - others, hard_limit=hard)
    return max(soft - others, 1)
