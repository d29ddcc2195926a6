"""What a client sends and receives on its connections."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import httpx2
import pytest
import trustme
import uvloop
from jobnik_sdk import JobnikClient, LostAnswerError, UnreachableError

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
TIMEOUT = 10.0
"""Seconds."""
Serve = Callable[[socket.socket], None]


@contextmanager
def serving(serve: Serve, *, tls: ssl.SSLContext | None = None) -> Generator[str]:
    """Serve each connection in a thread, and yield the URL of the server."""

    def handle(accepted: socket.socket) -> None:
        accepted.settimeout(TIMEOUT)
        try:
            with tls.wrap_socket(accepted, server_side=True) if tls else accepted as connection:
                serve(connection)
        except OSError:  # the client has gone away
            pass

    def accept() -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=handle, args=(accepted,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"{'https' if tls else 'http'}://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


async def _ask(client: JobnikClient, body: bytes | None = None) -> httpx2.Response:
    return await client.request("GET" if body is None else "POST", "/v1/jobs", json=body, retry=False)


def _succeed(connection: socket.socket) -> None:
    while connection.recv(65_536):
        connection.sendall(OK)


@pytest.mark.parametrize("body", [None, b"{}", b'{"pages":"%b"}' % (60_000 * b"x")])
async def test_a_request_arrives_in_one_piece(body: bytes | None) -> None:
    """The headers are not sent without the body, which would wake the manager twice."""
    received: SimpleQueue[bytes] = SimpleQueue()

    def serve(connection: socket.socket) -> None:
        while data := connection.recv(2**20):
            received.put(data)
            connection.sendall(OK)

    with serving(serve) as url:
        async with JobnikClient(url) as client:
            for _ in range(3):
                assert (await _ask(client, body)).content == b"{}"
                headers, _, rest = received.get(timeout=TIMEOUT).partition(b"\r\n\r\n")
                assert (b"User-Agent: jobnik-sdk" in headers, rest) == (True, body or b"")
    assert received.empty()


@pytest.mark.parametrize("size", [65_536, 5 * 2**20])
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_large_bodies_arrive_unchanged(size: int, run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    """In both directions, on every kind of event loop."""
    document = b'["%b"]' % (bytes(range(97, 123)) * (size // 26))

    def serve(connection: socket.socket) -> None:
        with connection.makefile("rwb") as stream:
            while stream.readline():
                length = 0
                while (line := stream.readline().strip()) != b"":
                    name, _, value = line.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                echo = stream.read(length)
                stream.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(echo))
                stream.write(echo)
                stream.flush()

    async def ask() -> None:
        async with JobnikClient(url) as client:
            for _ in range(2):
                assert (await _ask(client, document)).content == document

    with serving(serve) as url:
        run(ask())


@pytest.mark.parametrize("last_words", [b"", b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n"])
async def test_a_connection_that_the_server_has_closed_is_not_used(last_words: bytes) -> None:
    """Not even if the event loop was blocked at that time."""
    closed = threading.Semaphore(0)

    def serve(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(OK)
        if last_words:
            answered.acquire(timeout=TIMEOUT)  # otherwise, they would belong to the first response
            connection.sendall(last_words)
        connection.close()
        closed.release()

    answered = threading.Semaphore(0)
    with serving(serve) as url:
        async with JobnikClient(url) as client:
            for _ in range(5):
                assert (await _ask(client)).status_code == 200
                answered.release()
                assert closed.acquire(timeout=TIMEOUT)  # which blocks the event loop
                await asyncio.sleep(0)


async def test_a_connection_with_a_stray_response_is_not_used() -> None:
    """The next request would get this response."""
    answered, sent = threading.Semaphore(0), threading.Semaphore(0)

    def serve(connection: socket.socket) -> None:
        while connection.recv(65_536):
            connection.sendall(OK)
            answered.acquire(timeout=TIMEOUT)
            connection.sendall(OK.replace(b"{}", b"[]"))
            sent.release()

    with serving(serve) as url:
        async with JobnikClient(url) as client:
            for is_read in (False, True, False):
                assert (await _ask(client)).content == b"{}"
                answered.release()
                assert sent.acquire(timeout=TIMEOUT)
                if is_read:
                    await asyncio.sleep(0.01)


UNUSUAL = {
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1;x=y\r\n}\r\n0\r\nX: y\r\n\r\n",
    "interim": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK,
    "text outside ASCII": OK.replace(b"OK", "Dobře".encode()),
}


@pytest.mark.parametrize("answer", [OK, *UNUSUAL.values()], ids=["ordinary", *UNUSUAL])
@pytest.mark.parametrize("size", [1, 7, 1_000])
async def test_a_response_may_arrive_in_any_form_and_in_pieces(answer: bytes, size: int) -> None:
    """The connection serves the next request."""
    accepted = list[socket.socket]()

    def serve(connection: socket.socket) -> None:
        accepted.append(connection)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while connection.recv(65_536):
            for start in range(0, len(answer), size):
                connection.sendall(answer[start : start + size])

    with serving(serve) as url:
        async with JobnikClient(url) as client:
            for _ in range(3):
                assert (await _ask(client)).content == b"{}"
    assert len(accepted) == 1


@pytest.mark.parametrize("answer", [
    b"HTTP/1.1 200 OK\r\n\r\n{}",
    b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{}",
    OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
])  # fmt: skip
async def test_a_response_may_end_with_its_connection(answer: bytes) -> None:
    """The next request opens another one."""
    accepted = list[socket.socket]()

    def serve(connection: socket.socket) -> None:
        accepted.append(connection)
        connection.recv(65_536)
        connection.sendall(answer)

    with serving(serve) as url:
        async with JobnikClient(url) as client:
            for number in (1, 2):
                assert (await _ask(client)).content == b"{}"
                assert len(accepted) == number


@pytest.mark.parametrize("answer", [
    b"",
    OK[:-1],
    OK[:30],
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + 200_000 * b"x",
])  # fmt: skip
async def test_a_response_that_is_incomplete_or_invalid_is_lost(answer: bytes) -> None:
    """The manager may have processed the request."""

    def serve(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(answer)

    with serving(serve) as url:
        async with JobnikClient(url) as client:
            with pytest.raises(LostAnswerError):
                await _ask(client, b"{}")
            with pytest.raises(LostAnswerError):
                await _ask(client, b"{}")


async def test_connections_are_kept_for_later_requests_up_to_a_limit() -> None:
    """At most 100 requests are sent at a time, and 20 of their connections are kept."""
    accepted, waiting, released = list[socket.socket](), threading.Semaphore(0), threading.Event()

    def serve(connection: socket.socket) -> None:
        accepted.append(connection)
        while connection.recv(65_536):
            waiting.release()
            released.wait(TIMEOUT)
            connection.sendall(OK)

    with serving(serve) as url:
        async with JobnikClient(url) as client:
            asking = [asyncio.create_task(_ask(client)) for _ in range(110)]
            for _ in range(100):
                assert await asyncio.to_thread(waiting.acquire, timeout=TIMEOUT)
            assert len(accepted) == 100
            released.set()
            await asyncio.gather(*asking)
            before = len(accepted)
            await asyncio.gather(*(_ask(client) for _ in range(20)))
            assert len(accepted) == before
            await asyncio.gather(*(_ask(client) for _ in range(21)))
            assert len(accepted) == before + 1


async def test_a_connection_that_breaks_is_a_lost_answer() -> None:
    """The manager may have processed the request."""

    def serve(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(OK[:40])
        linger = (1).to_bytes(4, "little") + bytes(4)  # so that the connection is reset
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    with serving(serve) as url:
        async with JobnikClient(url) as client:
            with pytest.raises(LostAnswerError, match="did not answer: "):
                await _ask(client, b"{}")


async def test_an_answer_before_the_end_of_a_request_counts() -> None:
    """A server may refuse a large request without reading it."""

    def serve(connection: socket.socket) -> None:
        connection.recv(1)
        connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(2**20):
            pass

    with serving(serve) as url:
        async with JobnikClient(url) as client:
            with pytest.raises(Exception, match="413 Too Large"):
                await _ask(client, b'"%b"' % (10_000_000 * b"x"))


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_tls_needs_a_trusted_certificate(
    run: Callable[[Coroutine[Any, Any, None]], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one of them, requests succeed; without, none is sent."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate = authority.issue_cert("127.0.0.1")
    certificate.configure_cert(context)  # pyright: ignore[reportUnknownMemberType] pyOpenSSL is not installed
    file = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(file))

    async def ask() -> None:
        async with JobnikClient(url) as stranger:
            with pytest.raises(UnreachableError, match="certificate verify failed"):
                await _ask(stranger)
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        async with JobnikClient(url) as client:
            for body in (None, b"{}"):
                assert (await _ask(client, body)).content == b"{}"

    with serving(_succeed, tls=context) as url:
        run(ask())


@pytest.mark.parametrize(("name", "value", "is_used"), [
    ("HTTP_PROXY", "{proxy}", True),
    ("all_proxy", "{proxy}", True),
    ("HTTPS_PROXY", "http://127.0.0.1:9", False),
])  # fmt: skip
async def test_a_proxy_of_the_environment_is_used(
    name: str,
    value: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_used: bool,
) -> None:
    """The proxy gets the whole URL. Without a proxy for it, the name of the manager is looked up."""
    lines: SimpleQueue[bytes] = SimpleQueue()

    def serve(connection: socket.socket) -> None:
        lines.put(connection.recv(65_536).partition(b"\r\n")[0])
        connection.sendall(OK)

    with serving(serve) as proxy:
        monkeypatch.setenv(name, value.format(proxy=proxy))
        async with JobnikClient("http://manager.invalid") as client:
            if is_used:
                assert (await _ask(client)).content == b"{}"
                assert lines.get(timeout=TIMEOUT) == b"GET http://manager.invalid/v1/jobs HTTP/1.1"
            else:
                with pytest.raises(UnreachableError):
                    await _ask(client)
