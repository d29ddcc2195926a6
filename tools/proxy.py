"""A proxy in front of a manager that simulates network failures."""

import asyncio
import re
import socket
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from enum import StrEnum
from urllib.parse import urlsplit

from tools.server_thread import ServerThread

LENGTH = re.compile(rb"^content-length: *(\d+)", re.IGNORECASE | re.MULTILINE)


class RequestFault(StrEnum):
    """A fault in one request."""

    REFUSED = "connection closed before the manager receives the request"
    CUT = "connection closed after the manager receives the request"
    SWALLOWED = "response lost"
    DELAYED = "response delayed"
    DRIPPING = "response arrives byte by byte"


class Cut(StrEnum):
    """A network outage."""

    REFUSING = "connections are closed, new ones are refused"
    SILENT = "data is lost, connections stay open"


class Proxy(ServerThread):
    """Listens on one address until the end of the ``with`` block and forwards to `target`.

    Args:
        target: The manager's address, as http://host:port. It may change at any time.
        delay: How long a delayed response, or each byte of one that drips, is held back, in seconds.
    """

    def __init__(self, target: str, delay: float = 1.0) -> None:
        super().__init__()
        self.target = target
        self.url = ""
        self.choose: Callable[[str], RequestFault | None] = lambda _request: None
        """Chooses the fault for a request line, such as "POST /v1/jobs HTTP/1.1". It may change at any time."""
        self.fault_counts: Counter[RequestFault] = Counter()
        """Number of requests per fault."""
        self._delay = delay
        self._cut: Cut | None = None
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}
        self._dead: list[asyncio.StreamWriter] = []

    def cut(self, how: Cut) -> None:
        """Start an outage, which lasts until `mend`."""
        self._do(self._go_away(how))

    def mend(self) -> None:
        """End the outage for new connections. Connections from before the outage stay dead."""
        self._do(self._come_back())

    def _do(self, work: Coroutine[None, None, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    @asynccontextmanager
    async def listen(self) -> AsyncGenerator[None]:
        """Listen until the end of the ``async with`` block."""
        with socket.socket() as place:
            # Bound without listening, so that no other process takes the port while connections are refused.
            place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            place.bind(("127.0.0.1", 0))
            self._port = place.getsockname()[1]
            self.url = f"http://127.0.0.1:{self._port}"
            await self._accept_connections()
            yield
            await self._go_away(Cut.REFUSING)
        for writer in self._dead:
            writer.transport.abort()

    async def _accept_connections(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port, reuse_port=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        connection = asyncio.create_task(self._connect(reader, writers))
        self._connections[connection] = writers
        connection.add_done_callback(self._hang_up)

    def _hang_up(self, connection: asyncio.Task[None]) -> None:
        writers = self._connections.pop(connection)
        if self._cut is Cut.SILENT:
            self._dead += writers  # left open, so that neither side notices
        else:
            for writer in writers:
                writer.transport.abort()

    async def _go_away(self, how: Cut) -> None:
        self._cut = how
        if how is Cut.REFUSING and self._server is not None:
            self._server.close()
            self._server = None
        broken = [*self._connections]
        for connection in broken:
            connection.cancel()
        await asyncio.gather(*broken, return_exceptions=True)

    async def _come_back(self) -> None:
        self._cut = None
        if self._server is None:
            await self._accept_connections()

    async def _connect(self, reader: asyncio.StreamReader, writers: list[asyncio.StreamWriter]) -> None:
        """Serve one client connection, and add the connection to the manager to `writers`."""
        address = urlsplit(self.target)
        coming = asyncio.create_task(_message(reader))
        try:
            if self._cut is not None:
                await asyncio.Event().wait()
            manager_reader, manager_writer = await asyncio.open_connection(address.hostname, address.port)
            writers.append(manager_writer)
            while request := await coming:
                # The client waits for the response, so until then the only thing it can send is the end of the stream.
                coming = asyncio.create_task(_message(reader))
                fault = self._choose_fault(request)
                answer = await self._pass_on(request, fault, coming, manager_reader, manager_writer)
                if fault is RequestFault.DRIPPING:
                    await self._drip(writers[0], answer)
                    break
                if not answer:
                    break
                writers[0].write(answer)
                await writers[0].drain()
        except OSError:
            pass  # either side may close the connection or be absent, which is what this proxy simulates
        finally:
            coming.cancel()

    def _choose_fault(self, request: bytes) -> RequestFault | None:
        fault = self.choose(request.partition(b"\r\n")[0].decode())
        if fault is not None:
            self.fault_counts[fault] += 1
        return fault

    async def _drip(self, writer: asyncio.StreamWriter, answer: bytes) -> None:
        for number in range(len(answer)):
            writer.write(answer[number : number + 1])
            await writer.drain()
            await asyncio.sleep(self._delay)

    async def _pass_on(
        self,
        request: bytes,
        fault: RequestFault | None,
        end: asyncio.Task[bytes],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bytes:
        """Forward a request to the manager and return the response, or b"" if the connection ends."""
        if fault is RequestFault.REFUSED:
            return b""
        writer.write(request)
        await writer.drain()
        if fault is RequestFault.CUT:
            return b""
        answer = asyncio.create_task(_message(reader))
        try:
            await asyncio.wait((answer, end), return_when=asyncio.FIRST_COMPLETED)
            if fault is RequestFault.DELAYED:
                await asyncio.sleep(self._delay)
            return answer.result() if answer.done() and fault is not RequestFault.SWALLOWED else b""
        finally:
            answer.cancel()


async def _message(reader: asyncio.StreamReader) -> bytes:
    """Read a request or response with its body; return b"" if the other side has closed the connection."""
    with suppress(asyncio.IncompleteReadError, OSError):
        head = await reader.readuntil(b"\r\n\r\n")
        length = LENGTH.search(head)
        return head + await reader.readexactly(int(length[1]) if length else 0)
    return b""
