"""A proxy before a manager, which does to requests and answers what networks do."""

import asyncio
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from enum import StrEnum
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

LENGTH = re.compile(rb"^content-length: *(\d+)", re.IGNORECASE | re.MULTILINE)


class Mischief(StrEnum):
    """What may happen to a request."""

    REFUSED = "cut off before the manager has the request"
    CUT = "cut off as soon as the manager has the request"
    SWALLOWED = "the manager's answer does not arrive"
    DELAYED = "the manager's answer arrives late"


class Cut(StrEnum):
    """How a network is away."""

    REFUSING = "connections break, and new ones are refused"
    SILENT = "nothing arrives any more, and nobody is told"


class Proxy:
    """Listens on one address for as long as the ``with`` block lasts, whoever answers behind it.

    It runs in a thread of its own, so that it goes on while the one who started it waits for something else.

    Args:
        target: The manager, as http://host:port; may be changed at any time.
        delay: Seconds that a late answer is held back.
    """

    def __init__(self, target: str, delay: float = 1.0) -> None:
        self.target = target
        self.url = ""
        self.choose: Callable[[str], Mischief | None] = lambda _request: None
        """What happens to a request, such as "POST /v1/jobs HTTP/1.1"; may be changed at any time."""
        self.done: Counter[Mischief] = Counter()
        """How often what has happened."""
        self._delay = delay
        self._cut: Cut | None = None
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}
        self._dead: list[asyncio.StreamWriter] = []
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
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def cut(self, how: Cut) -> None:
        """Let the network be away, from the time that this returns until `mend`."""
        self._do(self._go_away(how))

    def mend(self) -> None:
        """Let new connections through; those that were there when it was cut stay dead."""
        self._do(self._come_back())

    def _do(self, work: Coroutine[None, None, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        with socket.socket() as place:
            # Held without listening, so that nobody takes the port while connections are refused.
            place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            place.bind(("127.0.0.1", 0))
            self._port = place.getsockname()[1]
            self.url = f"http://127.0.0.1:{self._port}"
            await self._listen()
            self._ready.set()
            await self._stop.wait()
            await self._go_away(Cut.REFUSING)
        for writer in self._dead:
            writer.transport.abort()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port, reuse_port=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        connection = asyncio.create_task(self._connect(reader, writers))
        self._connections[connection] = writers
        connection.add_done_callback(self._hang_up)

    def _hang_up(self, connection: asyncio.Task[None]) -> None:
        writers = self._connections.pop(connection)
        if self._cut is Cut.SILENT:
            self._dead += writers  # neither side is told
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
            await self._listen()

    async def _connect(self, reader: asyncio.StreamReader, writers: list[asyncio.StreamWriter]) -> None:
        """One connection of a caller, with one of its own to the manager, which it adds to `writers`."""
        address = urlsplit(self.target)
        coming = asyncio.create_task(_message(reader))
        try:
            if self._cut is not None:
                await asyncio.Event().wait()
            manager_reader, manager_writer = await asyncio.open_connection(address.hostname, address.port)
            writers.append(manager_writer)
            while request := await coming:
                # While the manager works, the next that comes can only be the caller's end: he waits for his answer.
                coming = asyncio.create_task(_message(reader))
                answer = await self._pass_on(request, coming, manager_reader, manager_writer)
                if not answer:
                    break
                writers[0].write(answer)
                await writers[0].drain()
        except OSError:
            pass  # either side may hang up, or not be there: that is what this is for
        finally:
            coming.cancel()

    async def _pass_on(
        self,
        request: bytes,
        end: asyncio.Task[bytes],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bytes:
        """Pass a request on to the manager; its answer, or nothing where the connection ends."""
        mischief = self.choose(request.partition(b"\r\n")[0].decode())
        if mischief is not None:
            self.done[mischief] += 1
        if mischief is Mischief.REFUSED:
            return b""
        writer.write(request)
        await writer.drain()
        if mischief is Mischief.CUT:
            return b""
        answer = asyncio.create_task(_message(reader))
        try:
            await asyncio.wait((answer, end), return_when=asyncio.FIRST_COMPLETED)
            if mischief is Mischief.DELAYED:
                await asyncio.sleep(self._delay)
            return answer.result() if answer.done() and mischief is not Mischief.SWALLOWED else b""
        finally:
            answer.cancel()


async def _message(reader: asyncio.StreamReader) -> bytes:
    """A request or an answer with its body; empty where the other side has hung up."""
    with suppress(asyncio.IncompleteReadError, OSError):
        head = await reader.readuntil(b"\r\n\r\n")
        length = LENGTH.search(head)
        return head + await reader.readexactly(int(length[1]) if length else 0)
    return b""
