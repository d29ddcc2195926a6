"""Claims and reports on the hot path, below ASGI, follow HTTP."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from urllib.parse import urlsplit

import pytest

from tests.support.protocol import Client


class RawConnection:
    """A connection on which a test sends exact bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, text: str) -> None:
        """Send a text."""
        self._writer.write(text.encode())
        await self._writer.drain()

    async def receive(self) -> tuple[int, dict[str, str], dict[str, str]]:
        """Return the status, headers and JSON of the next response."""
        status, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        body = await self._reader.readexactly(int(headers["content-length"]))
        return int(status.split(" ")[1]), headers, json.loads(body)

    async def receive_continue(self) -> None:
        """Receive 100 Continue, which has no headers and no body."""
        assert await self._reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"

    async def is_closed(self) -> bool:
        """Whether the manager closes the connection without sending anything more."""
        return await self._reader.read() == b""

    async def aclose(self) -> None:
        """Close the connection."""
        self._writer.close()
        await self._writer.wait_closed()


@pytest.fixture
async def raw(manager_url: str) -> AsyncGenerator[RawConnection]:
    """A raw connection to the shared manager."""
    address = urlsplit(manager_url)
    async with aclosing(RawConnection(*await asyncio.open_connection(address.hostname, address.port))) as opened:
        yield opened


def claim(stage_type: str, *headers: str) -> str:
    """Return the bytes of a claim as text."""
    return "\r\n".join([f"PATCH /v1/stages/{stage_type}/tasks/dequeue HTTP/1.1", "Host: manager", *headers, "", ""])


def report(task_id: str, body: str, *headers: str) -> str:
    """Return the bytes of a report as text."""
    head = [f"PUT /v1/tasks/{task_id}/status HTTP/1.1", "Host: manager", "Content-Type: application/json"]
    return "\r\n".join([*head, f"Content-Length: {len(body)}", *headers, "", body])


async def test_one_connection_serves_hot_path_and_other_requests(
    client: Client, raw: RawConnection, stage_type: str
) -> None:
    """Claims, reports and other requests can follow each other on one connection."""
    (task,) = await client.tasks(await client.stage(await client.job(), stage_type))
    await raw.send(claim(stage_type))
    status, headers, claimed = await raw.receive()
    assert (status, claimed["id"], claimed["status"]) == (200, task["id"], "IN_PROGRESS")
    assert headers["content-type"] == "application/json"
    assert "date" in headers
    await raw.send("GET /liveness HTTP/1.1\r\nHost: manager\r\n\r\n")
    assert (await raw.receive())[0] == 200
    await raw.send(report(task["id"], '{"status": "COMPLETED"}'))
    assert (await raw.receive())[2]["status"] == "COMPLETED"
    await raw.send(report(task["id"], '{"status": "COMPLETED"}'))
    status, _, refusal = await raw.receive()
    assert (status, refusal["code"]) == (400, "ILLEGAL_TASK_STATUS_TRANSITION")


async def test_a_report_may_arrive_in_pieces(client: Client, raw: RawConnection, stage_type: str) -> None:
    """The head and the body of a report may arrive separately and in several pieces."""
    await client.tasks(await client.stage(await client.job(), stage_type))
    task = await client.claimed(stage_type)
    for piece in report(task["id"], '{"status": "COMPLETED"}').partition("\r\n\r\n"):
        for half in (piece[: len(piece) // 2], piece[len(piece) // 2 :]):
            await raw.send(half)
            await asyncio.sleep(0.01)
    assert (await raw.receive())[2]["status"] == "COMPLETED"


async def test_pipelined_requests_are_answered_in_order(client: Client, raw: RawConnection, stage_type: str) -> None:
    """Requests sent before the previous response are answered in the order in which they were sent."""
    tasks = await client.tasks(await client.stage(await client.job(), stage_type), 3)
    await raw.send(claim(stage_type) * 3 + claim("nothing-here") + "GET /liveness HTTP/1.1\r\nHost: manager\r\n\r\n")
    assert [(await raw.receive())[2]["id"] for _ in tasks] == [task["id"] for task in tasks]
    assert (await raw.receive())[0] == 404
    assert (await raw.receive())[0] == 200


async def test_a_client_may_ask_to_close(client: Client, raw: RawConnection, stage_type: str) -> None:
    """The response announces that the connection closes, and it closes."""
    await client.tasks(await client.stage(await client.job(), stage_type))
    await raw.send(claim(stage_type, "Connection: close"))
    status, headers, _ = await raw.receive()
    assert (status, headers["connection"]) == (200, "close")
    assert await raw.is_closed()


async def test_http_1_0_is_supported(raw: RawConnection) -> None:
    """An HTTP/1.0 request is answered, and the connection closes."""
    await raw.send(claim("nothing-here").replace("HTTP/1.1", "HTTP/1.0"))
    assert (await raw.receive())[0] == 404
    assert await raw.is_closed()


@pytest.mark.parametrize("body", ['{"status": "GREAT"}', '{"status": "COMPLETED", "more": 1}', "{", " " * 2000])
async def test_an_invalid_report_is_refused_by_its_route(raw: RawConnection, body: str) -> None:
    """An invalid report gets the refusal of its route, and the connection stays open."""
    await raw.send(report("00000000-0000-7000-8000-000000000000", body))
    status, _, refusal = await raw.receive()
    assert (status, refusal["code"]) == (400, "VALIDATION_ERROR")
    await raw.send(claim("nothing-here"))
    assert (await raw.receive())[0] == 404


async def test_expect_100_continue_is_answered(client: Client, raw: RawConnection, stage_type: str) -> None:
    """The manager sends 100 Continue before the client sends the body."""
    await client.tasks(await client.stage(await client.job(), stage_type))
    task = await client.claimed(stage_type)
    head, _, body = report(task["id"], '{"status": "COMPLETED"}', "Expect: 100-continue").partition("\r\n\r\n")
    await raw.send(f"{head}\r\n\r\n")
    await raw.receive_continue()
    await raw.send(body)
    assert (await raw.receive())[2]["status"] == "COMPLETED"


async def test_a_report_counts_although_its_sender_disconnects(
    client: Client, raw: RawConnection, stage_type: str
) -> None:
    """A report that has arrived is processed even if nobody waits for the response."""
    stage = await client.stage(await client.job(), stage_type)
    await client.tasks(stage)
    task = await client.claimed(stage_type)
    await raw.send(report(task["id"], '{"status": "COMPLETED"}'))
    await raw.aclose()
    async with asyncio.timeout(10):
        while (await client.read(task))["status"] != "COMPLETED":  # noqa: ASYNC110 - the manager does not call us
            await asyncio.sleep(0.01)
