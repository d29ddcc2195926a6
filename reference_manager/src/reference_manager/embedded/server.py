"""The embedded server, which runs for as long as the manager."""

import logging
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from reference_manager.embedded.account import server_account
from reference_manager.embedded.binaries import find_binaries, reachable_binaries
from reference_manager.embedded.cluster import DATABASE, ROLE, ensure_cluster, read_password
from reference_manager.embedded.errors import EmbeddedPostgresError
from reference_manager.embedded.folder import DataFolder
from reference_manager.embedded.postmaster import read_pid_file, stop_orphaned_server
from reference_manager.embedded.process import start_server

_log = logging.getLogger(__name__)

_HOST = "127.0.0.1"
# Recovery after a crash replays up to max_wal_size of the log, which takes minutes on a slow disk.
_START_TIMEOUT = timedelta(minutes=5)
_STOP_TIMEOUT = timedelta(seconds=60)
_POLL_INTERVAL = timedelta(milliseconds=5)
_LOG_TAIL_LINES = 15

# Another program took the port first, or the last processes of a killed server are still running.
_TRANSIENT_ERRORS = ("could not create any TCP/IP sockets", "pre-existing shared memory block")

_SETTINGS = {
    "listen_addresses": _HOST,
    "unix_socket_directories": "",  # none, because their paths have at most 107 characters, and every tool can use TCP
    "max_connections": "100",
    "shared_buffers": "128MB",  # holds the indexes of a backlog, and is small enough for a laptop
    "max_wal_size": "2GB",  # fewer checkpoints while a large backlog is created
    "random_page_cost": "1.1",  # solid-state drives read random pages almost as fast as sequential ones
    "jit": "off",  # the queries are so short that compiling them takes longer
    "timezone": "UTC",
    "log_timezone": "UTC",
}
_TEST_SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class EmbeddedPostgres:
    """A PostgreSQL server with its cluster in a data folder. Also a context manager, which starts and stops it.

    Its methods block. If the manager is killed, the server shuts down by itself on Linux, and at the next start on
    macOS. Neither loses committed data.

    Args:
        data_dir: The folder of the cluster, its password (mode 0600) and its log `postgres.log`. Created if missing.
        durable: Whether committed data survives a power failure. False is for test databases only.
        settings: PostgreSQL settings that override the defaults, such as {"max_connections": "200"}. {"port": …}
            keeps the port the same at each start.
        binaries: The folder of `postgres` and `initdb`. Default: the result of `find_binaries`.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        durable: bool = True,
        settings: Mapping[str, str] | None = None,
        binaries: Path | None = None,
    ) -> None:
        self._folder = DataFolder(data_dir)
        self._durable = durable
        self._settings = _SETTINGS | ({} if durable else _TEST_SETTINGS) | dict(settings or {})
        self._binaries = binaries
        self._process: subprocess.Popen[str] | None = None
        self._url: str | None = None

    @property
    def url(self) -> str:
        """The URL `postgresql://jobnik:PASSWORD@127.0.0.1:PORT/jobnik`. The port may change at each start.

        Raises:
            EmbeddedPostgresError: The server is not running.
        """
        if self._url is None:
            raise EmbeddedPostgresError("The embedded PostgreSQL is not running: call start() first.")
        return self._url

    @property
    def log_file(self) -> Path:
        """The log file of the server. The log of the previous run is postgres.previous.log in the same folder."""
        return self._folder.log_file

    def start(self) -> None:
        """Create the cluster unless it exists, start the server, and return when it accepts connections.

        Raises:
            EmbeddedPostgresError: The server cannot start; the message says why and what to do.
        """
        if self._process is not None:
            return
        if threading.current_thread() is not threading.main_thread():
            raise EmbeddedPostgresError(
                "Start the embedded PostgreSQL from the main thread: it stops when the thread that started it ends."
            )
        self._folder.create()
        self._folder.lock()
        try:
            self._start_locked()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Shut the server down, wait until it has ended, and release the folder. Does nothing if it is not running."""
        process, self._process, self._url = self._process, None, None
        if process is not None:
            _shut_down(process)
        self._folder.unlock()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _start_locked(self) -> None:
        folder = self._folder
        account = server_account(folder.pgdata)
        if account:
            folder.check_reachable_by(account)
        binaries = reachable_binaries(find_binaries(self._binaries), account)
        ensure_cluster(folder, binaries, account, durable=self._durable)
        stop_orphaned_server(folder.pgdata)
        read_password(folder)  # before the server starts, because it is useless without

        deadline = time.monotonic() + _START_TIMEOUT.total_seconds()
        while self._url is None:
            port = int(self._settings.get("port") or _free_port())
            with folder.new_log() as log:
                self._process = start_server(self._command(binaries, port), account, log)
            if self._becomes_ready(self._process, deadline):
                self._url = _url(folder, port)
                fields = {"host": _HOST, "port": port, "data_dir": str(folder.root)}
                _log.info("embedded database is ready", extra=fields)

    def _command(self, binaries: Path, port: int) -> list[str]:
        settings = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        return [str(binaries / "postgres"), "-D", str(self._folder.pgdata), "-p", str(port), *settings]

    def _becomes_ready(self, process: subprocess.Popen[str], deadline: float) -> bool:
        """Return True once the server accepts connections; False if it ended because of a transient error.

        Raises:
            EmbeddedPostgresError: The server ended because of another error, or was not ready in time.
        """
        while time.monotonic() < deadline:
            ended = process.poll() is not None
            found = read_pid_file(self._folder.pgdata)
            if found and found.pid == process.pid and found.status == "ready":
                return True
            if ended:
                output = self.log_file.read_text(errors="replace")
                if any(error in output for error in _TRANSIENT_ERRORS):
                    return False
                raise EmbeddedPostgresError(
                    f"PostgreSQL did not start (exit code {process.returncode}). "
                    f"The end of {self.log_file}:\n{_tail(output)}"
                )
            time.sleep(_POLL_INTERVAL.total_seconds())
        raise EmbeddedPostgresError(f"PostgreSQL was not ready within {_START_TIMEOUT}. See {self.log_file}.")


def running_server_url(data_dir: Path) -> str | None:
    """Return the URL of the server that another process runs in a data folder; None if none is ready."""
    folder = DataFolder(data_dir)
    found = read_pid_file(folder.pgdata) if folder.is_locked() else None
    return _url(folder, found.port) if found and found.status == "ready" else None


def _url(folder: DataFolder, port: int) -> str:
    return f"postgresql://{ROLE}:{read_password(folder)}@{_HOST}:{port}/{DATABASE}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return probe.getsockname()[1]


def _shut_down(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_STOP_TIMEOUT.total_seconds())
    except subprocess.TimeoutExpired:
        timeout = {"timeout_seconds": _STOP_TIMEOUT.total_seconds()}
        _log.warning("embedded database did not shut down in time; stopping it at once", extra=timeout)
        process.send_signal(signal.SIGQUIT)
        process.wait()


def _tail(text: str) -> str:
    return os.linesep.join(text.splitlines()[-_LOG_TAIL_LINES:])
