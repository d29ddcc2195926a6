"""Clients of probes and metrics that are many, slow, silent or disconnect early, over IPv4 and IPv6."""

import logging
import os
import socket
import struct
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing

import httpx2
import pytest
from jobnik_sdk.observability import probe_connections
from jobnik_sdk.observability.probes import Health, ProbeServer
from prometheus_client import REGISTRY, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: close with a reset."""


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")


@pytest.fixture
def server() -> Iterator[ProbeServer]:
    """A server of probes on a free port."""
    with ProbeServer(Health(), host="127.0.0.1", port=0) as server:
        yield server


def _connect(server: ProbeServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=30)


def _get(url: str) -> httpx2.Response:
    with httpx2.Client(verify=False, trust_env=False, timeout=30) as client:
        return client.get(url)


def _is_live(server: ProbeServer) -> bool:
    return _get(f"http://127.0.0.1:{server.port}/livez").text == "ok\n"


@pytest.mark.parametrize("request_bytes", [b"", b"GET /metr", b"GET /metrics HTTP/1.1\r\n\r\n"], ids=len)
def test_clients_that_reset_their_connection_cause_no_output(
    server: ProbeServer,
    request_bytes: bytes,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """There is no output if they do so before, in or after their request. Other clients are served."""
    threads = threading.active_count()
    with caplog.at_level(logging.DEBUG):
        for _ in range(300):
            with closing(_connect(server)) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                client.sendall(request_bytes)
        assert _is_live(server)
        assert _get(f"http://127.0.0.1:{server.port}/metrics").status_code == 200
    assert "".join(capfd.readouterr()) == ""
    assert not [record for record in caplog.records if record.name.startswith(("asyncio", "jobnik"))]
    assert threading.active_count() <= threads + 1


@pytest.mark.parametrize(
    "request_bytes", [b"", b"GET /livez HTTP/1.1\r\nHost: ", b"GET /metrics HTTP/1.1\r\n\r\n"], ids=len
)
def test_silent_clients_delay_nobody(server: ProbeServer, request_bytes: bytes) -> None:
    """Hundreds of clients that send half a request, or never read, occupy no thread and delay no probe."""
    with ExitStack() as stack:
        for _ in range(300):
            client = stack.enter_context(closing(_connect(server)))
            client.sendall(request_bytes)
        assert _is_live(server)


def test_the_oldest_connections_close_first(server: ProbeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silent clients cannot use up the connections that others need."""
    monkeypatch.setattr(probe_connections, "MAX_CONNECTIONS", 10)
    with ExitStack() as stack:
        silent = [stack.enter_context(closing(_connect(server))) for _ in range(20)]
        assert _is_live(server)
        for client in silent[:10]:
            assert _rest(client) == b""


def test_a_client_has_a_limited_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """After this time, the connection closes."""
    monkeypatch.setattr(probe_connections, "CLIENT_TIMEOUT", 0.1)
    with ProbeServer(Health(), host="127.0.0.1", port=0) as server, closing(_connect(server)) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\n")
        assert _rest(client) == b""


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n", b"200"),
        (b"GET /livez\n\n", b"200"),
        (b"HEAD /livez HTTP/1.0\r\n\r\n", b"200"),
        (b"POST /livez HTTP/1.1\r\n\r\n", b"405"),
        (b"GET /nothing HTTP/1.1\r\n\r\n", b"404"),
        (b"\r\n\r\n", b"400"),
        (b"\xff\xfe\r\n\r\n", b"400"),
        (b"x" * 100_000, b""),
    ],
)
def test_any_request_is_answered(server: ProbeServer, request_bytes: bytes, status: bytes) -> None:
    """One request for each connection; a request without end closes it."""
    with closing(_connect(server)) as client:
        client.sendall(request_bytes)
        answer = _rest(client)
    assert answer[9:12] == status
    assert (b"ok" in answer.partition(b"\r\n\r\n")[2]) is (status == b"200" and not request_bytes.startswith(b"HEAD"))


def test_a_client_may_close_its_side_after_the_request(server: ProbeServer) -> None:
    """The client still gets the response."""
    with closing(_connect(server)) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        assert _rest(client).startswith(b"HTTP/1.1 200 OK")


class _Collector(Collector):
    """A collector of the application: it waits, or fails."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.may_end = threading.Event()
        self.error: Exception | None = None

    @override
    def collect(self) -> Iterable[Metric]:
        self.started.set()
        if self.error is not None:
            raise self.error
        assert self.may_end.wait(30)
        return ()

    def describe(self) -> Iterable[Metric]:
        """Describe nothing, so that registering collects nothing."""
        return ()


@pytest.fixture
def collector() -> Iterator[_Collector]:
    """A collector of the application."""
    collector = _Collector()
    REGISTRY.register(collector)
    yield collector
    collector.may_end.set()
    REGISTRY.unregister(collector)


def test_a_slow_collector_does_not_delay_probes(server: ProbeServer, collector: _Collector) -> None:
    """Several scrapes wait for the same collection."""
    with closing(_connect(server)) as first, closing(_connect(server)) as second:
        first.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert collector.started.wait(30)
        second.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert _is_live(server)
        collector.may_end.set()
        assert _rest(first).startswith(b"HTTP/1.1 200 OK")
        assert _rest(second).startswith(b"HTTP/1.1 200 OK")


def test_a_failing_collector_fails_the_scrape(server: ProbeServer, collector: _Collector) -> None:
    """The next scrape tries again."""
    collector.error = ValueError("broken")
    assert _get(f"http://127.0.0.1:{server.port}/metrics").status_code == 500
    collector.error = None
    collector.may_end.set()
    assert _get(f"http://127.0.0.1:{server.port}/metrics").status_code == 200


@needs_ipv6
@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("::1", ["[::1]"]),
        ("[::1]", ["[::1]"]),
        ("::", ["[::1]", "127.0.0.1"]),
        ("::ffff:127.0.0.1", ["127.0.0.1"]),
        ("0.0.0.0", ["127.0.0.1"]),  # noqa: S104
        ("localhost", ["127.0.0.1"]),
    ],
)
def test_any_address_can_be_listened_on(host: str, addresses: list[str]) -> None:
    """`::` includes IPv4."""
    with ProbeServer(Health(), host=host, port=0) as server:
        for address in addresses:
            assert _get(f"http://{address}:{server.port}/livez").status_code == 200


@pytest.mark.parametrize("host", ["nowhere.invalid", "192.0.2.1", "a" * 70, "\udc80", "\0"], ids=ascii)
def test_an_address_of_nobody_is_an_error(host: str) -> None:
    """The error is an OSError, whether the system or the codec of host names refuses the address."""
    with pytest.raises(OSError):  # noqa: PT011 its number differs
        ProbeServer(Health(), host=host, port=0)


def test_a_fork_of_a_handler_does_not_keep_the_port() -> None:
    """The worker can start again on the same port, even while a fork of the previous one is running."""
    ours, childs = socket.socketpair()
    with closing(ours), closing(childs):
        with ProbeServer(Health(), host="127.0.0.1", port=0) as server:
            child = os.fork()
            if child == 0:  # pragma: no cover
                childs.send(b"x")
                childs.recv(1)
                os._exit(0)
            assert ours.recv(1) == b"x"
        try:
            with ProbeServer(Health(), host="127.0.0.1", port=server.port) as again:
                assert _is_live(again)
        finally:
            ours.send(b"x")
            assert os.waitpid(child, 0)[1] == 0


def _rest(client: socket.socket) -> bytes:
    """Read until the server closes the connection."""
    received = b""
    try:
        while chunk := client.recv(65_536):
            received += chunk
    except ConnectionResetError:
        pass
    return received
