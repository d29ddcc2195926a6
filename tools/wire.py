"""A client that costs next to nothing, for benchmarks and crowds: requests prepared, answers hardly read."""

import asyncio
import re
from urllib.parse import urlsplit

LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


class Wire:
    """One HTTP connection, one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: bytes) -> None:
        self._reader = reader
        self._writer = writer
        self._host = host

    @classmethod
    async def open(cls, url: str) -> "Wire":
        """Connect to http://host:port."""
        address = urlsplit(url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        return cls(reader, writer, address.netloc.encode())

    def close(self) -> None:
        """Disconnect."""
        self._writer.close()

    async def ask(self, method: bytes, path: bytes, body: bytes = b"") -> tuple[int, bytes]:
        """Status and body of the answer."""
        self._writer.write(
            b"%s %s HTTP/1.1\r\nhost: %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
            % (method, path, self._host, len(body), body)
        )
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = LENGTH.search(head)
        return int(head[9:12]), await self._reader.readexactly(int(length[1])) if length else b""

    async def claim(self, stage_type: str) -> bytes | None:
        """The id of the next task of this type, or None."""
        status, body = await self.ask(b"PATCH", b"/v1/stages/%s/tasks/dequeue" % stage_type.encode())
        if status not in (200, 404):
            raise RuntimeError(f"A claim was answered {status}: {body!r}")
        return body[7:43] if status == 200 else None  # noqa: PLR2004 - the JSON begins with {"id":"

    async def complete(self, task_id: bytes) -> None:
        """Report a task COMPLETED."""
        status, body = await self.ask(b"PUT", b"/v1/tasks/%s/status" % task_id, b'{"status":"COMPLETED"}')
        if status != 200:  # noqa: PLR2004 - accepted
            raise RuntimeError(f"A report was answered {status}: {body!r}")
