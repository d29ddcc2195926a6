"""A network between a manager and PostgreSQL whose connections can go silent: they stay open, and nothing arrives."""

import asyncio
import threading
from concurrent.futures import Future

from tests.support.database_proxy import DatabaseProxy


class SilentNetwork(DatabaseProxy):
    """Forwards connections to a server until they go silent.

    Args:
        database_url: The URL of the database.
    """

    def __init__(self, database_url: str) -> None:
        super().__init__(database_url)
        self._lost_answers: dict[bytes, Future[None]] = {}
        self._speaking = threading.Event()
        """Set while the current connections forward data. Connections that went silent keep an event that is not."""
        self._speaking.set()

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

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection."""
        connection = _Connection(self._speaking, self._lost_answers)
        server_reader, server_writer = await self.connect_to_server()
        directions = (
            asyncio.create_task(connection.forward_requests(reader, server_writer)),
            asyncio.create_task(connection.forward_answers(server_reader, writer)),
        )
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            if connection.is_silent:
                await self.stopped.wait()  # the end of a silent connection does not arrive either
        finally:
            for direction in directions:
                direction.cancel()
            server_writer.transport.abort()


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
