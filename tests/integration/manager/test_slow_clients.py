"""Clients that are slow, silent or too many cost a manager a bounded number of connections, bytes and seconds."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import httpx2
from reference_manager.api.common.bodies import LARGE, MAX_RECEIVED
from reference_manager.server.connections import SURPLUS

from tests.support.protocol import Client, refused
from tools.manager import ManagerProcess

Start = Callable[..., ManagerProcess]
MIB = 1024 * 1024
HEAD = b"POST /v1/jobs HTTP/1.1\r\nHost: manager\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


@asynccontextmanager
async def raw(url: str, sent: bytes = b"") -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A raw connection on which these bytes have been sent."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(sent)
        await writer.drain()
        yield reader, writer
    finally:
        writer.transport.abort()


async def ends(reader: asyncio.StreamReader) -> bytes:
    """Return what the manager sends until it closes the connection."""
    received = b""
    try:
        while piece := await reader.read(65536):
            received += piece
    except ConnectionResetError:
        pass
    return received


async def send_until_closed(writer: asyncio.StreamWriter, text: bytes, interval: float = 0) -> None:
    """Send the same bytes until the connection closes, with an interval in seconds."""
    try:
        while True:
            writer.write(text)
            await writer.drain()
            await asyncio.sleep(interval)
    except ConnectionError:
        pass


async def test_slow_requests_are_ended_and_long_polls_are_not(start_manager: Start) -> None:
    """Silent clients, slow heads and slow bodies are disconnected; a request that the manager works on is not."""
    manager = start_manager("--client-timeout", "PT2S")
    async with (
        httpx2.AsyncClient(base_url=manager.url, timeout=15) as http,
        raw(manager.url) as silent,
        raw(manager.url, b"GET /liveness HTTP/1.1\r\n") as head,
        raw(manager.url, b"GET /liveness HTTP/1.1\r\nHost: x\r\n\r\n\r\n") as between,
        raw(manager.url, HEAD % 100 + b"{") as body,
        raw(manager.url, HEAD % 100_000) as slow_body,
    ):
        polling = asyncio.create_task(
            http.post("/v1/stages/none/tasks/claim", json={"workerId": "me", "waitSeconds": 4})
        )
        trickle = [
            asyncio.create_task(send_until_closed(writer, text, 0.2))
            for (_, writer), text in ((head, b"X: y\r\n"), (between, b"\r\n"), (slow_body, b" "))
        ]
        assert await ends(silent[0]) == b""
        assert await ends(head[0]) == b""
        assert b"ALIVE" in await ends(between[0])
        assert await ends(body[0]) == b""
        assert await ends(slow_body[0]) == b""
        await asyncio.gather(*trickle)
        assert (await polling).json() == {"tasks": []}


async def test_connections_above_the_limit_serve_only_the_probes(start_manager: Start) -> None:
    """Above the limit, requests are refused and the probes are answered, however many connections there are."""
    manager = start_manager("--connection-limit", "2")
    async with (
        raw(manager.url) as (reader, writer),
        raw(manager.url),
        httpx2.AsyncClient(base_url=manager.url, timeout=15) as http,
    ):
        for response in (
            await http.get("/v1/jobs"),
            await http.patch("/v1/stages/x/tasks/dequeue"),
            await http.post("/v1/jobs", json={"name": "job", "data": {"text": "x" * 500_000}}),
        ):
            refused(response, 503, "MANAGER_BUSY")
            assert (response.headers["Retry-After"], response.headers["Connection"]) == ("1", "close")
        flood = [raw(manager.url) for _ in range(2 * SURPLUS)]
        for one in flood:
            await one.__aenter__()
        for path in ("/liveness", "/readiness", "/metrics"):
            response = await http.get(path)
            assert (response.status_code, response.headers["Connection"]) == (200, "close")
        for one in flood:
            await one.__aexit__(None, None, None)
        writer.close()
        assert await ends(reader) == b""
        while (await http.get("/v1/jobs")).status_code == 503:
            pass
        assert (await http.get("/v1/jobs")).status_code == 200


async def test_pipelined_requests_and_trailers_are_bounded(manager_url: str) -> None:
    """A connection with too many unanswered requests, or with endless trailers, closes; a few pipelined ones do not."""
    request = b"GET /v1/jobs?limit=1 HTTP/1.1\r\nHost: manager\r\n\r\n"
    last = b"GET /liveness HTTP/1.1\r\nHost: manager\r\nConnection: close\r\n\r\n"
    async with raw(manager_url, request * 50 + last) as (reader, _):
        assert (await ends(reader)).count(b"HTTP/1.1 200 OK") == 51
    async with raw(manager_url, request * 1_000 + last) as (reader, _):
        assert b"ALIVE" not in await ends(reader)
    chunked = HEAD.replace(b"Content-Length: %d", b"Transfer-Encoding: chunked")
    for endless in (b"0\r\n", b"1;"):
        async with raw(manager_url, chunked + endless) as (reader, writer):
            sending = asyncio.create_task(send_until_closed(writer, b"a: b\r\n" * 20_000))
            assert await ends(reader) == b""
            await sending


async def test_large_bodies_are_bounded_in_total(start_manager: Start) -> None:
    """Of many unfinished large bodies, some are refused. Small requests are served, and large ones afterwards."""
    manager = start_manager()
    one = HEAD % MIB + b" " * (MIB - 1)
    async with httpx2.AsyncClient(base_url=manager.url, timeout=15) as http:
        connections = [raw(manager.url, one) for _ in range(MAX_RECEIVED // (MIB - LARGE) + 2)]
        opened = [await connection.__aenter__() for connection in connections]
        answers = [asyncio.create_task(reader.readuntil(b"}")) for reader, _ in opened]
        (answer, *_), _ = await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
        head, _, body = answer.result().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 1" in head.lower()
        assert json.loads(body)["code"] == "MANAGER_BUSY"
        await Client(http).job()
        for task in answers:
            task.cancel()
        for connection in connections:
            await connection.__aexit__(None, None, None)
        large = {"name": "job", "data": {"text": "x" * (MIB - 1000)}}
        while (await http.post("/v1/jobs", json=large)).status_code == 503:
            pass
        assert (await http.post("/v1/jobs", json=large)).status_code == 201
