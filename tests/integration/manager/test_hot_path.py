"""Claims and reports take the hot path below ASGI: HTTP stays HTTP on it."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from urllib.parse import urlsplit

import pytest

from tests.support.protocol import Client


class Line:
    """A connection on which a test says exactly what it means."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def say(self, text: str) -> None:
        """Send."""
        self._writer.write(text.encode())
        await self._writer.drain()

    async def hear(self) -> tuple[int, dict[str, str], dict[str, str]]:
        """Status, headers and JSON of the next answer."""
        status, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        body = await self._reader.readexactly(int(headers["content-length"]))
        return int(status.split(" ")[1]), headers, json.loads(body)

    async def hear_go_on(self) -> None:
        """100, which has no headers and no body."""
        assert await self._reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"

    async def closed(self) -> bool:
        """Whether the manager hangs up without another word."""
        return await self._reader.read() == b""

    async def aclose(self) -> None:
        """Hang up."""
        self._writer.close()
        await self._writer.wait_closed()


@pytest.fixture
async def line(manager_url: str) -> AsyncGenerator[Line]:
    """A connection to the shared manager."""
    address = urlsplit(manager_url)
    async with aclosing(Line(*await asyncio.open_connection(address.hostname, address.port))) as opened:
        yield opened


def claim(stage_type: str, *headers: str) -> str:
    """A claim as it goes over the wire."""
    return "\r\n".join([f"PATCH /v1/stages/{stage_type}/tasks/dequeue HTTP/1.1", "Host: manager", *headers, "", ""])


def report(task_id: str, body: str, *headers: str) -> str:
    """A report as it goes over the wire."""
    head = [f"PUT /v1/tasks/{task_id}/status HTTP/1.1", "Host: manager", "Content-Type: application/json"]
    return "\r\n".join([*head, f"Content-Length: {len(body)}", *headers, "", body])


async def test_one_connection_serves_claims_reports_and_the_rest(client: Client, line: Line, stage_type: str) -> None:
    """A connection carries both kinds of requests, one after the other."""
    (task,) = await client.tasks(await client.stage(await client.job(), stage_type))
    await line.say(claim(stage_type))
    status, headers, claimed = await line.hear()
    assert (status, claimed["id"], claimed["status"]) == (200, task["id"], "IN_PROGRESS")
    assert headers["content-type"] == "application/json"
    assert "date" in headers
    await line.say("GET /liveness HTTP/1.1\r\nHost: manager\r\n\r\n")
    assert (await line.hear())[0] == 200
    await line.say(report(task["id"], '{"status": "COMPLETED"}'))
    assert (await line.hear())[2]["status"] == "COMPLETED"
    await line.say(report(task["id"], '{"status": "COMPLETED"}'))
    status, _, refusal = await line.hear()
    assert (status, refusal["code"]) == (400, "ILLEGAL_TASK_STATUS_TRANSITION")


async def test_a_report_may_come_in_pieces(client: Client, line: Line, stage_type: str) -> None:
    """Head and body need not come together, nor whole."""
    await client.tasks(await client.stage(await client.job(), stage_type))
    task = await client.claimed(stage_type)
    for piece in report(task["id"], '{"status": "COMPLETED"}').partition("\r\n\r\n"):
        for half in (piece[: len(piece) // 2], piece[len(piece) // 2 :]):
            await line.say(half)
            await asyncio.sleep(0.01)
    assert (await line.hear())[2]["status"] == "COMPLETED"


async def test_what_is_sent_ahead_is_answered_in_order(client: Client, line: Line, stage_type: str) -> None:
    """Requests that do not wait for the answer before get theirs in the order in which they were sent."""
    tasks = await client.tasks(await client.stage(await client.job(), stage_type), 3)
    await line.say(claim(stage_type) * 3 + claim("nothing-here") + "GET /liveness HTTP/1.1\r\nHost: manager\r\n\r\n")
    assert [(await line.hear())[2]["id"] for _ in tasks] == [task["id"] for task in tasks]
    assert (await line.hear())[0] == 404
    assert (await line.hear())[0] == 200


async def test_a_client_may_ask_to_close(client: Client, line: Line, stage_type: str) -> None:
    """The answer says that the connection closes, and it does."""
    await client.tasks(await client.stage(await client.job(), stage_type))
    await line.say(claim(stage_type, "Connection: close"))
    status, headers, _ = await line.hear()
    assert (status, headers["connection"]) == (200, "close")
    assert await line.closed()


async def test_http_1_0_is_understood(line: Line) -> None:
    """An old client is answered, and the connection closes."""
    await line.say(claim("nothing-here").replace("HTTP/1.1", "HTTP/1.0"))
    assert (await line.hear())[0] == 404
    assert await line.closed()


@pytest.mark.parametrize("body", ['{"status": "GREAT"}', '{"status": "COMPLETED", "more": 1}', "{", " " * 2000])
async def test_what_is_unusual_goes_to_the_framework(line: Line, body: str) -> None:
    """A report that is not well-formed gets the refusal that its route words, and the connection goes on."""
    await line.say(report("00000000-0000-7000-8000-000000000000", body))
    status, _, refusal = await line.hear()
    assert (status, refusal["code"]) == (400, "VALIDATION_ERROR")
    await line.say(claim("nothing-here"))
    assert (await line.hear())[0] == 404


async def test_a_client_that_wants_to_be_asked_for_the_body_is(client: Client, line: Line, stage_type: str) -> None:
    """Expect: 100-continue is answered before the body comes."""
    await client.tasks(await client.stage(await client.job(), stage_type))
    task = await client.claimed(stage_type)
    head, _, body = report(task["id"], '{"status": "COMPLETED"}', "Expect: 100-continue").partition("\r\n\r\n")
    await line.say(f"{head}\r\n\r\n")
    await line.hear_go_on()
    await line.say(body)
    assert (await line.hear())[2]["status"] == "COMPLETED"


async def test_a_report_counts_although_its_sender_hung_up(client: Client, line: Line, stage_type: str) -> None:
    """What has arrived is done, whether or not somebody waits for the answer."""
    stage = await client.stage(await client.job(), stage_type)
    await client.tasks(stage)
    task = await client.claimed(stage_type)
    await line.say(report(task["id"], '{"status": "COMPLETED"}'))
    await line.aclose()
    async with asyncio.timeout(10):
        while (await client.read(task))["status"] != "COMPLETED":  # noqa: ASYNC110 - the manager does not call us
            await asyncio.sleep(0.01)
