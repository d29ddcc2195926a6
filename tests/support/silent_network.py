"""A network between a manager and PostgreSQL whose connections can be slow, or silent: open, but nothing arrives."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeAlias

from tests.support.database_proxy import DatabaseProxy

Choose: TypeAlias = "Callable[[Sequence[_Connection]], _Connection]"
"""Chooses one of several connections."""


class SilentNetwork(DatabaseProxy):
    """Forwards connections to a server until they go silent.

    Args:
        database_url: The URL of the database.
    """

    def __init__(self, database_url: str) -> None:
        super().__init__(database_url)
        self.choose_delay: Callable[[], float] = lambda: 0.0
        """Chooses how late the next answer arrives, in seconds. It may change at any time."""
        self._connections: list[_Connection] = []
        self._lost_answers: dict[bytes, Future[None]] = {}
        self._speaking = threading.Event()
        """Set while the current connections forward data. Connections that went silent keep an event that is not."""
        self._speaking.set()

    @property
    def has_silent_connections(self) -> bool:
        """Whether a client still keeps a silent connection."""
        return any(connection.is_silent and not connection.is_closed for connection in self._connections)

    def silence(self) -> None:
        """Silence all connections, and those that are opened before ``mend``."""
        self._speaking.clear()

    def silence_one(self, choose: Choose) -> None:
        """Silence one of the connections that still work, if there is any."""
        if speaking := [connection for connection in self._connections if not connection.is_silent]:
            choose(speaking).lose_answers()

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
        connection = _Connection(self._speaking, self._lost_answers, self._delay)
        server_reader, server_writer = await self.connect_to_server()
        directions = (
            asyncio.create_task(connection.forward_requests(reader, server_writer)),
            asyncio.create_task(connection.forward_answers(server_reader, writer)),
        )
        self._connections.append(connection)
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            if connection.is_silent:
                await self.stopped.wait()  # the end of a silent connection does not arrive either
        finally:
            self._connections.remove(connection)
            for direction in directions:
                direction.cancel()
            server_writer.transport.abort()

    def _delay(self) -> float:
        return self.choose_delay()


class _Connection:
    def __init__(
        self, speaking: threading.Event, lost_answers: dict[bytes, Future[None]], delay: Callable[[], float]
    ) -> None:
        self._speaking = speaking
        self._lost_answers = lost_answers
        self._delay = delay
        self._answers_lost = False
        self.is_closed = False
        """Whether the client has closed it."""

    @property
    def is_silent(self) -> bool:
        return self._answers_lost or not self._speaking.is_set()

    def lose_answers(self) -> None:
        self._answers_lost = True

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
        self.is_closed = True

    async def forward_answers(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            if delay := self._delay():
                await asyncio.sleep(delay)
            if not self.is_silent:
                target.write(data)
                await target.drain()
