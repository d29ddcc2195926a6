"""A network between a manager and PostgreSQL whose connections can go silent: they stay open, and nothing arrives."""

import asyncio
import threading
from concurrent.futures import Future
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit


class SilentNetwork:
    """Forwards connections to a server, in its own thread, until the end of the ``with`` block.

    Args:
        database_url: The URL of the database.
    """

    def __init__(self, database_url: str) -> None:
        parts = urlsplit(database_url)
        assert parts.hostname
        assert parts.port
        self._server = (parts.hostname, parts.port)
        self._parts = parts
        self._lost_answers: dict[bytes, Future[None]] = {}
        self._speaking = threading.Event()
        """Set while the current connections forward data. Connections that went silent keep an event that is not."""
        self._speaking.set()
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.address = ""
        self.url = ""
        """The URL of the database behind this network."""

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def silence(self) -> None:
        """Silence all connections, and those that are opened before ``mend``."""
        self._speaking.clear()

    def mend(self) -> None:
        """Let new connections work. Those that went silent remain so."""
        self._speaking = threading.Event()
        self._speaking.set()

    def lose_answer(self, request: bytes) -> asyncio.Future[None]:
        """Silence the next connection that sends these bytes, once they have been forwarded.

        Returns:
            A future that is done when it has happened.
        """
        self._lost_answers[request] = Future()
        return asyncio.wrap_future(self._lost_answers[request])

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        listener = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        account = self._parts.netloc.rpartition("@")[0]
        self.url = urlunsplit(self._parts._replace(netloc=f"{account}@{self.address}"))
        self._ready.set()
        await self._stop.wait()
        listener.close()
        connections = asyncio.all_tasks() - {asyncio.current_task()}
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self._speaking, self._lost_answers)
        writers = [writer]
        directions: list[asyncio.Task[None]] = []
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._server)
            writers.append(server_writer)
            directions += (
                asyncio.create_task(connection.forward_requests(reader, server_writer)),
                asyncio.create_task(connection.forward_answers(server_reader, writer)),
            )
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            if connection.is_silent:
                await self._stop.wait()  # the end of a silent connection does not arrive either
        except (OSError, asyncio.CancelledError):
            pass  # either side is gone, or the test is over
        finally:
            for direction in directions:
                direction.cancel()
            for one in writers:
                one.transport.abort()


class _Connection:
    def __init__(self, speaking: threading.Event, lost_answers: dict[bytes, Future[None]]) -> None:
        self._speaking = speaking
        self._lost_answers = lost_answers
        self._answers_lost = False

    @property
    def is_silent(self) -> bool:
        return self._answers_lost or not self._speaking.is_set()

    async def forward_requests(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            if self.is_silent:
                continue
            lost = [request for request in self._lost_answers if request in data]
            self._answers_lost = bool(lost)
            target.write(data)
            await target.drain()
            for request in lost:
                self._lost_answers.pop(request).set_result(None)

    async def forward_answers(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            if not self.is_silent:
                target.write(data)
                await target.drain()
