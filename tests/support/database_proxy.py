"""A server of a test that stands between a manager and PostgreSQL, in its own thread."""

import asyncio
import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self, TypeAlias
from urllib.parse import urlsplit, urlunsplit

Server: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]
"""A connection to the server."""


class DatabaseProxy(ABC):
    """Listens until the end of the ``with`` block. It has its own thread, because a test blocks while a manager starts.

    Args:
        database_url: The URL of the database.
    """

    def __init__(self, database_url: str) -> None:
        parts = urlsplit(database_url)
        assert parts.hostname
        assert parts.port
        self._server = (parts.hostname, parts.port)
        self._server_writers: list[asyncio.StreamWriter] = []
        self.address = ""
        self.url = ""
        """The URL of the database behind this proxy."""
        self._parts = parts
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self.stopped.set)
        self._thread.join()

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

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._listen())

    async def _listen(self) -> None:
        self.stopped = asyncio.Event()
        listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        account = self._parts.netloc.rpartition("@")[0]
        self.url = urlunsplit(self._parts._replace(netloc=f"{account}@{self.address}"))
        self._ready.set()
        await self.stopped.wait()
        listener.close()
        connections = asyncio.all_tasks() - {asyncio.current_task()}
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        for writer in self._server_writers:
            writer.transport.abort()
