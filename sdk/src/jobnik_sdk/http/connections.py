"""The connections of a client: each event loop has its own, and so has each process after a fork."""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import httpx2


class Pool(StrEnum):
    """Which of a client's connections a request uses. Requests of one pool never wait for a connection of another."""

    GENERAL = "general"
    CLAIMS = "claims"
    REPORTS = "reports"


_LIMITS: Final[Mapping[Pool, httpx2.Limits]] = {
    Pool.GENERAL: httpx2.Limits(max_connections=100, max_keepalive_connections=20),
    # A worker has at most two claims for each handler, and each may wait at the manager for a task.
    Pool.CLAIMS: httpx2.Limits(max_connections=None, max_keepalive_connections=None),
    Pool.REPORTS: httpx2.Limits(max_connections=100, max_keepalive_connections=20),
}


class Connections:
    """The connections of a client, opened on demand by the event loop and the process that use them.

    The connections of a loop are closed together with the loop: an asynchronous generator that was started on a loop
    ends when `asyncio.run` does. A forked process leaves the connections of its parent alone: it neither uses nor
    closes them, since both would disturb the parent.

    Args:
        create: Creates an HTTP client, given the argument `limits`.
    """

    def __init__(self, create: Callable[..., httpx2.AsyncClient]) -> None:
        self._create = create
        self._by_loop: dict[tuple[int, asyncio.AbstractEventLoop], _LoopConnections] = {}
        self._closed = False

    async def get(self, pool: Pool) -> httpx2.AsyncClient:
        """Return the HTTP client of a pool for the current event loop.

        Raises:
            RuntimeError: the connections were closed.
        """
        if self._closed:
            raise RuntimeError("This client is closed. Create another one.")
        key = (os.getpid(), asyncio.get_running_loop())
        own = self._by_loop.get(key)
        if own is None:
            self._forget_closed_loops()
            own = self._by_loop[key] = _LoopConnections()
            await anext(own.lifetime)
        if pool not in own.clients:
            own.clients[pool] = self._create(limits=_LIMITS[pool])
        return own.clients[pool]

    async def aclose(self) -> None:
        """Close all connections of this process. Idempotent. Other loops close theirs as soon as they run."""
        self._closed = True
        for (process, loop), connections in list(self._by_loop.items()):
            if process != os.getpid() or loop.is_closed():
                continue
            if loop is asyncio.get_running_loop():
                await connections.close()
            else:
                asyncio.run_coroutine_threadsafe(connections.close(), loop)

    def _forget_closed_loops(self) -> None:
        for key in list(self._by_loop):
            process, loop = key
            if process == os.getpid() and loop.is_closed():
                self._by_loop.pop(key, None)


@dataclass(slots=True)
class _LoopConnections:
    clients: dict[Pool, httpx2.AsyncClient] = field(default_factory=dict[Pool, httpx2.AsyncClient])
    lifetime: AsyncGenerator[None] = field(init=False)

    def __post_init__(self) -> None:
        self.lifetime = _close_at_end(self.clients)

    async def close(self) -> None:
        """Close all clients. Idempotent, even while another task does so."""
        await _close_all(self.clients)
        with suppress(RuntimeError):  # the loop is ending, and is closing the generator already
            await self.lifetime.aclose()


async def _close_at_end(clients: MutableMapping[Pool, httpx2.AsyncClient]) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        await _close_all(clients)


async def _close_all(clients: MutableMapping[Pool, httpx2.AsyncClient]) -> None:
    while clients:
        _, client = clients.popitem()
        await client.aclose()
