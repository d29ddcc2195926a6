"""The PostgreSQL of the cluster: a primary, at times a standby, and the networks between them and the managers."""

import os
import shutil
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import asyncpg
from reference_manager.embedded import EmbeddedPostgres
from reference_manager.embedded.postmaster import read_pid_file

from tests.support.silent_network import SilentNetwork
from tests.support.standby import copy_server
from tools.ports import free_port

RECONNECT_INTERVAL = "100ms"
"""How soon a standby looks for its primary again."""


class Servers:
    """Two servers, each with its own port, one of which is the primary. The other one is started as its standby.

    Args:
        folder: Existing folder for the data, accessible to every user.
    """

    def __init__(self, folder: Path) -> None:
        self._folders = [folder / f"postgres-{number + 1}" for number in range(2)]
        self._reserved = [_steady_port() for _ in self._folders]
        self.ports: list[int] = [one.getsockname()[1] for one in self._reserved]
        settings = {"wal_retrieve_retry_interval": RECONNECT_INTERVAL}
        self._servers = [
            EmbeddedPostgres(one, settings=settings | {"port": str(port)})
            for one, port in zip(self._folders, self.ports, strict=True)
        ]
        self._primary = 0

    def __enter__(self) -> Self:
        self.primary.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.stop()
        for one in self._reserved:
            one.close()

    @property
    def primary(self) -> EmbeddedPostgres:
        """The server that accepts writes."""
        return self._servers[self._primary]

    @property
    def primary_port(self) -> int:
        """The port of the primary."""
        return self.ports[self._primary]

    @property
    def urls(self) -> list[str]:
        """The URL of each server, running or not."""
        return [self.primary.url.replace(f":{self.primary_port}/", f":{port}/") for port in self.ports]

    def kill(self) -> None:
        """Kill the primary with SIGKILL."""
        found = read_pid_file(self._folders[self._primary] / "postgres")
        assert found
        os.kill(found.pid, signal.SIGKILL)

    def restart(self) -> None:
        """Restart a killed primary with the same data and port."""
        self.primary.stop()
        self.primary.start()

    def start_standby(self) -> None:
        """Start a new copy of the primary as its standby, in place of the server that was the primary before."""
        standby, folder = self._servers[1 - self._primary], self._folders[1 - self._primary]
        standby.stop()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        folder.chmod(0o711)
        copy_server(self.primary, folder / "postgres")
        shutil.copy(self._folders[self._primary] / "postgres.password", folder)
        standby.start()

    def promote_standby(self) -> str:
        """Regard the standby as the primary. Return its URL, for the statement that makes it so."""
        self._primary = 1 - self._primary
        return self.primary.url


class Networks:
    """The networks between one manager and the servers.

    Args:
        servers: The running servers.
    """

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self.all = [SilentNetwork(url) for url in servers.urls]
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        for network in self.all:
            self._stack.enter_context(network)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def to_primary(self) -> SilentNetwork:
        """The network to the primary."""
        return self.all[self._servers.ports.index(self._servers.primary_port)]

    @property
    def url(self) -> str:
        """The URL of the database, with both servers."""
        parts = urlsplit(self.all[0].url)
        account = parts.netloc.rpartition("@")[0]
        hosts = ",".join(network.address for network in self.all)
        return parts._replace(netloc=f"{account}@{hosts}").geturl()


async def on_server(url: str, query: Callable[..., Awaitable[Any]], **arguments: object) -> Any:  # noqa: ANN401 - any value
    """Run a query on one server."""
    connection = await asyncpg.connect(url)
    try:
        return await query(connection, **arguments)
    finally:
        await connection.close()


def _steady_port() -> socket.socket:
    """Reserve a port, so that no other program takes it while its server is down.

    PostgreSQL can listen on it, because no other socket does, and both sockets have SO_REUSEADDR.
    """
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", free_port()))
    return reserved
