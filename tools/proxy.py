"""A proxy before a manager, which does to requests and answers what networks do."""

import asyncio
import re
import threading
from collections import Counter
from collections.abc import Callable
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
        self.choose: Callable[[], Mischief | None] = lambda: None
        """What happens to the next request; may be changed at any time."""
        self.done: Counter[Mischief] = Counter()
        """How often what has happened."""
        self._delay = delay
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

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        connections: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = asyncio.create_task(self._connect(reader, writer))
            connections.add(connection)
            connection.add_done_callback(connections.discard)

        server = await asyncio.start_server(accept, "127.0.0.1")
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._stop.wait()
        server.close()
        for connection in connections:
            connection.cancel()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a caller, with one of its own to the manager."""
        address = urlsplit(self.target)
        writers = [writer]
        coming = asyncio.create_task(_message(reader))
        try:
            manager_reader, manager_writer = await asyncio.open_connection(address.hostname, address.port)
            writers.append(manager_writer)
            while request := await coming:
                # While the manager works, the next that comes can only be the caller's end: he waits for his answer.
                coming = asyncio.create_task(_message(reader))
                answer = await self._pass_on(request, coming, manager_reader, manager_writer)
                if not answer:
                    break
                writer.write(answer)
                await writer.drain()
        except OSError:
            pass  # either side may hang up, or not be there: that is what this is for
        finally:
            coming.cancel()
            for opened in writers:
                opened.transport.abort()

    async def _pass_on(
        self,
        request: bytes,
        end: asyncio.Task[bytes],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bytes:
        """Pass a request on to the manager; its answer, or nothing where the connection ends."""
        mischief = self.choose()
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
