"""A minimal HTTP client for benchmarks and load tests. It spends almost no time on parsing."""

import asyncio
import re
from collections.abc import Sequence
from typing import cast
from urllib.parse import urlsplit

LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
TASK = re.compile(rb'"id":"([0-9a-f-]{36})","stageId"')
LEASE = re.compile(rb'"leaseId":(\d+)')


class Wire(asyncio.Protocol):
    """One HTTP connection that sends one request at a time."""

    def __init__(self, host: bytes) -> None:
        self._host = host
        self._received = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def open(cls, url: str) -> "Wire":
        """Connect to http://host:port."""
        address = urlsplit(url)
        loop = asyncio.get_running_loop()
        _, wire = await loop.create_connection(
            lambda: cls(address.netloc.encode()), address.hostname or "", address.port or 80
        )
        return wire

    def close(self) -> None:
        """Disconnect."""
        if self._transport:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the pending request, if any."""
        if self._answer and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("The manager closed the connection"))

    def data_received(self, data: bytes) -> None:
        """Complete the response when all of it has arrived."""
        self._received += data
        end = self._received.find(b"\r\n\r\n") + 4
        if end < 4 or self._answer is None:  # noqa: PLR2004 - the head is incomplete
            return
        length = LENGTH.search(self._received, 0, end)
        if len(self._received) == end + (int(length[1]) if length else 0):
            self._answer.set_result((int(self._received[9:12]), self._received[end:]))

    async def ask(self, method: bytes, path: bytes, body: bytes = b"") -> tuple[int, bytes]:
        """Send a request; return the status and body of the response."""
        if self._transport is None:
            raise ConnectionError("Not connected")
        self._received = b""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(
            b"%s %s HTTP/1.1\r\nhost: %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
            % (method, path, self._host, len(body), body)
        )
        return await self._answer

    async def claim_many(self, stage_type: str, worker_id: str, limit: int) -> list[tuple[bytes, bytes]]:
        """Claim up to `limit` tasks; return the task id and lease id of each."""
        body = b'{"workerId":"%s","limit":%d}' % (worker_id.encode(), limit)
        answer = await self._accepted(b"POST", b"/v1/stages/%s/tasks/claim" % stage_type.encode(), body)
        return list(zip(TASK.findall(answer), LEASE.findall(answer), strict=True))

    async def complete_many(self, worker_id: str, tasks: Sequence[tuple[bytes, bytes]]) -> None:
        """Report leased tasks as COMPLETED."""
        results = b",".join(b'{"taskId":"%s","leaseId":%s,"outcome":"COMPLETED"}' % task for task in tasks)
        body = b'{"workerId":"%s","results":[%s]}' % (worker_id.encode(), results)
        answer = await self._accepted(b"POST", b"/v1/tasks/settle", body)
        if answer.count(b'"accepted":true') != len(tasks):
            raise RuntimeError(f"The manager refused reports: {answer!r}")

    async def _accepted(self, method: bytes, path: bytes, body: bytes) -> bytes:
        status, answer = await self.ask(method, path, body)
        if status != 200:  # noqa: PLR2004 - accepted
            raise RuntimeError(f"{method!r} {path!r} returned {status}: {answer!r}")
        return answer

    async def claim(self, stage_type: str) -> bytes | None:
        """Dequeue the next task of a type; return its id, or None if there is none."""
        status, body = await self.ask(b"PATCH", b"/v1/stages/%s/tasks/dequeue" % stage_type.encode())
        if status not in (200, 404):
            raise RuntimeError(f"A claim returned {status}: {body!r}")
        return body[7:43] if status == 200 else None  # noqa: PLR2004 - the JSON begins with {"id":"

    async def complete(self, task_id: bytes) -> None:
        """Report a task as COMPLETED."""
        await self._accepted(b"PUT", b"/v1/tasks/%s/status" % task_id, b'{"status":"COMPLETED"}')
