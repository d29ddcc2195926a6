"""Connections of a client: on several event loops, in forked processes, and with a time limit."""

import asyncio
import gc
import os
import time
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from jobnik_sdk import JobnikClient, LostAnswerError, ManagerFailureError, UnreachableError
from jobnik_sdk.producer.blocking import background
from typing_extensions import override

from tools.server_thread import ServerThread

_Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]
_OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class Server(ServerThread):
    """A server that counts its connections, and answers each request with `answer`."""

    def __init__(self, answer: _Answer) -> None:
        super().__init__()
        self._answer = answer
        self.url = ""
        self.opened = 0
        """The number of connections so far."""
        self.peers: set[int] = set()
        """The ports of the clients whose connections are open."""

    @override
    @asynccontextmanager
    async def listen(self) -> AsyncGenerator[None]:
        server = await asyncio.start_server(self._serve, "127.0.0.1")
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            yield

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        port: int = writer.get_extra_info("peername")[1]
        self.peers.add(port)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await self._answer(writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.peers.discard(port)
            writer.close()

    def wait_until_disconnected(self) -> None:
        """Wait until no connection is open."""
        deadline = time.monotonic() + 10
        while self.peers:
            assert time.monotonic() < deadline, "some connections are still open"
            time.sleep(0.01)


async def _succeed(writer: asyncio.StreamWriter) -> None:
    writer.write(_OK)


async def _trickle(writer: asyncio.StreamWriter) -> None:
    writer.write(_OK.replace(b"Length: 2", b"Length: 200")[:-2])
    for _ in range(100):
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


async def _be_busy(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 503 Busy\r\nRetry-After: 20\r\nContent-Length: 0\r\n\r\n")


async def _ask(client: JobnikClient) -> int:
    return (await client.request("GET", "/v1/jobs")).status_code


def test_a_client_works_on_one_loop_after_the_other() -> None:
    """Each loop opens its own connection, which is closed together with the loop."""
    with Server(_succeed) as server, warnings.catch_warnings():
        warnings.simplefilter("error")
        client = JobnikClient(server.url)
        for number in (1, 2, 3):
            assert asyncio.run(_ask(client)) == 200
            assert server.opened == number
            server.wait_until_disconnected()


def test_a_closed_client_is_refused() -> None:
    """It opens no connections, on any loop, and can be closed again."""
    client = JobnikClient("http://127.0.0.1:9")
    asyncio.run(client.aclose())
    asyncio.run(client.aclose())
    with pytest.raises(RuntimeError, match="This client is closed"):
        asyncio.run(_ask(client))


def test_a_fork_shares_no_connections() -> None:
    """The child opens its own connections, and the parent's remains usable."""
    with Server(_succeed) as server, asyncio.Runner() as runner:
        client = JobnikClient(server.url)
        runner.run(_ask(client))
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # this process has threads
            child = os.fork()
        if child == 0:
            status = 1
            try:
                status = 0 if [asyncio.run(_ask(client)) for _ in range(2)] == [200, 200] else 2
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert server.opened == 3
        assert runner.run(_ask(client)) == 200
        assert server.opened == 3


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_answer_that_never_ends_is_lost(method: str) -> None:
    """The time limit includes the body of the response, and there is no second try after it."""
    with Server(_trickle) as server:
        client = JobnikClient(server.url).limited(timedelta(seconds=0.3))
        with pytest.raises(LostAnswerError, match=r"the time limit of 0\.3 s has passed"):
            asyncio.run(client.request(method, "/v1/jobs"))
        assert server.opened == 1


def test_a_retry_after_the_limit_is_not_awaited() -> None:
    """If the manager asks for a longer delay than is left, its answer is the error at once."""
    with Server(_be_busy) as server:
        client = JobnikClient(server.url).limited(timedelta(seconds=10))
        with pytest.raises(ManagerFailureError) as caught:
            asyncio.run(_ask(client))
        assert caught.value.retry_after == timedelta(seconds=20)
        assert server.opened == 1


def test_a_request_that_was_never_sent_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the limit passes while the connection is being opened, the manager cannot have received the request."""

    async def connect(**_options: object) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr("anyio.connect_tcp", connect)
    client = JobnikClient("http://127.0.0.1:9").limited(timedelta(seconds=0.1))
    with pytest.raises(UnreachableError) as caught:
        asyncio.run(_ask(client))
    assert type(caught.value) is UnreachableError


def test_a_client_closes_the_connections_of_all_loops() -> None:
    """A loop in another thread closes its own connections."""
    with Server(_succeed) as server:
        client = JobnikClient(server.url)
        background.run(_ask(client))

        async def ask_and_close() -> None:
            await _ask(client)
            assert len(server.peers) == 2
            await client.aclose()

        asyncio.run(ask_and_close())
        server.wait_until_disconnected()


def test_a_client_that_was_dropped_closes_its_connections() -> None:
    """A program that creates a producer for each call leaves no connections behind."""
    with Server(_succeed) as server:
        for _ in range(3):
            background.run(_ask(JobnikClient(server.url)))
        gc.collect()
        server.wait_until_disconnected()
        assert server.opened == 3
