"""A connection pooler like PgBouncer, in as much of PostgreSQL's protocol as it takes to share sessions."""

import asyncio
import struct
from typing import Literal, TypeAlias

from tests.support.database_proxy import DatabaseProxy, Server

Mode: TypeAlias = Literal["session", "transaction", "statement"]
Message: TypeAlias = bytes
Request: TypeAlias = "asyncio.Task[Message]"

SSL_REQUEST = 80877103
ACCEPTED_PARAMETERS = {b"user", b"database", b"client_encoding", b"application_name"}
"""PgBouncer refuses a connection with any other parameter, unless it is told to ignore it."""
PASSWORD_REQUESTS = {10, 11}
"""The kinds of authentication messages that the client has to answer: the steps of SCRAM."""


class Pooler(DatabaseProxy):
    """Gives each session, or each transaction, of its clients one of its connections to the server.

    Args:
        database_url: The URL of the database.
        mode: What a client keeps its connection to the server for. In statement mode, transactions are refused.
    """

    def __init__(self, database_url: str, mode: Mode) -> None:
        super().__init__(database_url)
        self._mode = mode
        self._idle: list[Server] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client."""
        server = await self._log_in(reader, writer)
        if server is None:
            return
        if self._mode == "session":
            try:
                await self._relay(asyncio.create_task(_read(reader)), reader, writer, server)
            finally:
                server[1].transport.abort()
            return
        self._idle.append(server)
        request = asyncio.create_task(_read(reader))
        while (message := await request)[:1] not in {b"", b"X"}:
            if self._mode == "statement" and b"BEGIN" in message:
                writer.write(_refusal("transaction blocks not allowed in statement pooling mode"))
                await writer.drain()
                return
            server = self._idle.pop()
            request = await self._relay(request, reader, writer, server)
            self._idle.append(server)

    async def _log_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Server | None:
        """Let the client log in to a new connection to the server."""
        start = await _read_untyped(reader)
        if struct.unpack_from("!i", start, 4)[0] == SSL_REQUEST:
            writer.write(b"N")
            start = await _read_untyped(reader)
        names = start[8:].split(b"\0")[:-2:2]
        if refused := set(names) - ACCEPTED_PARAMETERS:
            writer.write(_refusal(f"unsupported startup parameter: {refused.pop().decode()}"))
            await writer.drain()
            return None
        server_reader, server_writer = server = await self.connect_to_server()
        server_writer.write(start)
        while answer := await _read(server_reader):
            writer.write(answer)
            if answer[:1] == b"Z":
                return server
            if answer[:1] == b"R" and struct.unpack_from("!i", answer, 5)[0] in PASSWORD_REQUESTS:
                server_writer.write(await _read(reader))
        server_writer.transport.abort()
        return None

    async def _relay(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: Server
    ) -> Request:
        """Relay messages until the server is idle outside a transaction; in session mode, until either side ends.

        Returns:
            The next request.
        """
        answer = asyncio.create_task(_read(server[0]))
        while True:
            done, _ = await asyncio.wait((request, answer), return_when=asyncio.FIRST_COMPLETED)
            if not all(one.result() for one in done):
                return request
            if request.done():
                server[1].write(request.result())
                request = asyncio.create_task(_read(reader))
            if answer.done():
                writer.write(answer.result())
                if self._mode != "session" and answer.result()[:1] + answer.result()[5:] == b"ZI":
                    return request
                answer = asyncio.create_task(_read(server[0]))


async def _read(reader: asyncio.StreamReader) -> Message:
    """Read a message: its type, its length and its content. Return b"" if the other side has closed the connection."""
    try:
        return await reader.readexactly(1) + await _read_untyped(reader)
    except (asyncio.IncompleteReadError, OSError):
        return b""


async def _read_untyped(reader: asyncio.StreamReader) -> Message:
    length = await reader.readexactly(4)
    return length + await reader.readexactly(struct.unpack("!i", length)[0] - 4)


def _refusal(message: str) -> Message:
    fields = b"SFATAL\0C08P01\0M" + message.encode() + b"\0\0"
    return b"E" + struct.pack("!i", len(fields) + 4) + fields
