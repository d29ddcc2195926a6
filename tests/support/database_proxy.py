"""A server of a test that stands between a manager and PostgreSQL, in its own thread."""

import asyncio
from abc import abstractmethod
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TypeAlias
from urllib.parse import urlsplit, urlunsplit

from tools.server_thread import ServerThread

Server: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]
"""A connection to the server."""


class DatabaseProxy(ServerThread):
    """Listens until the end of the ``with`` block, and keeps running while a test waits for a manager to start.

    Args:
        database_url: The URL of the database.
    """

    def __init__(self, database_url: str) -> None:
        super().__init__()
        parts = urlsplit(database_url)
        assert parts.hostname
        assert parts.port
        self._server = (parts.hostname, parts.port)
        self._server_writers: list[asyncio.StreamWriter] = []
        self.address = ""
        self.url = ""
        """The URL of the database behind this proxy."""
        self._parts = parts

    @abstractmethod
    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection. It is cancelled at the end, and may raise OSError if either side is gone."""

    async def connect_to_server(self) -> Server:
        """Open a connection to the server. It is closed at the end of the ``with`` block at the latest."""
        reader, writer = await asyncio.open_connection(*self._server)
        self._server_writers.append(writer)
        return reader, writer

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self.serve(reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    @asynccontextmanager
    async def listen(self) -> AsyncGenerator[None]:
        """Listen until the end of the ``async with`` block."""
        listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        account = self._parts.netloc.rpartition("@")[0]
        self.url = urlunsplit(self._parts._replace(netloc=f"{account}@{self.address}"))
        yield
        listener.close()
        connections = asyncio.all_tasks() - {asyncio.current_task()}
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        for writer in self._server_writers:
            writer.transport.abort()
