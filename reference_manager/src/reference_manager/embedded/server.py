"""The server: started when the manager starts, stopped when it stops."""

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
# Recovery after a crash replays up to max_wal_size of log, which takes a slow disk minutes.
_START_LIMIT = timedelta(minutes=5)
_STOP_LIMIT = timedelta(seconds=60)
_POLL_INTERVAL = timedelta(milliseconds=5)
_LOG_TAIL_LINES = 15

# Another program took the port first, or the last processes of a killed server are still going.
_PASSING_TROUBLE = ("could not create any TCP/IP sockets", "pre-existing shared memory block")

_SETTINGS = {
    "listen_addresses": _HOST,
    "unix_socket_directories": "",  # none: their paths end at 107 characters, and TCP serves every tool
    "max_connections": "100",
    "shared_buffers": "128MB",  # holds a backlog's indexes; a laptop does not miss it
    "max_wal_size": "2GB",  # fewer checkpoints while a large backlog is filled
    "random_page_cost": "1.1",  # today's disks have no head to move
    "jit": "off",  # compiling costs more than these short queries take
    "timezone": "UTC",
    "log_timezone": "UTC",
}
_SETTINGS_OF_TEST_DATABASE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class EmbeddedPostgres:
    """A PostgreSQL server with its cluster in a folder, for as long as this process wants it.

    Blocking, for the start of a process; also a context manager. Where the manager is killed, the server shuts down
    by itself (Linux) or is shut down by the next start (macOS); either way nothing committed is lost.

    Args:
        data_dir: Folder of the cluster, its password (mode 0600) and its log `postgres.log`; made when missing.
        durable: False switches off what makes data survive a power cut. For test databases only.
        settings: PostgreSQL settings by name that replace ours, such as {"max_connections": "200"}; with {"port": …} it
            is the same after each start.
        binaries: Folder of `postgres` and `initdb`; default: what `find_binaries` finds.
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
        self._settings = _SETTINGS | ({} if durable else _SETTINGS_OF_TEST_DATABASE) | dict(settings or {})
        self._binaries = binaries
        self._process: subprocess.Popen[str] | None = None
        self._url: str | None = None

    @property
    def url(self) -> str:
        """`postgresql://jobnik:PASSWORD@127.0.0.1:PORT/jobnik`; the port is another one after each start.

        Raises:
            EmbeddedPostgresError: The server has not been started.
        """
        if self._url is None:
            raise EmbeddedPostgresError("The embedded PostgreSQL is not running: call start() first.")
        return self._url

    @property
    def log_file(self) -> Path:
        """Where the server writes its log; that of the run before lies beside it as postgres.previous.log."""
        return self._folder.log_file

    def start(self) -> None:
        """Create the cluster when it is new, start the server, and return when it accepts connections.

        Raises:
            EmbeddedPostgresError: It cannot; the message says why and what to do.
        """
        if self._process is not None:
            return
        if threading.current_thread() is not threading.main_thread():
            raise EmbeddedPostgresError(
                "Start the embedded PostgreSQL from the main thread: it lives as long as the thread that starts it."
            )
        self._folder.create()
        self._folder.lock()
        try:
            self._start_locked()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Shut the server down, wait for its end and give the folder up; nothing happens to one that is not running."""
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
            folder.check_open_to(account)
        binaries = reachable_binaries(find_binaries(self._binaries), account)
        ensure_cluster(folder, binaries, account, durable=self._durable)
        stop_orphaned_server(folder.pgdata)
        password = read_password(folder)

        deadline = time.monotonic() + _START_LIMIT.total_seconds()
        while self._url is None:
            port = int(self._settings.get("port") or _free_port())
            with folder.new_log() as log:
                self._process = start_server(self._command(binaries, port), account, log)
            if self._becomes_ready(self._process, deadline):
                self._url = f"postgresql://{ROLE}:{password}@{_HOST}:{port}/{DATABASE}"
                _log.info("PostgreSQL is ready on %s:%d, its data in %s", _HOST, port, folder.root)

    def _command(self, binaries: Path, port: int) -> list[str]:
        settings = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        return [str(binaries / "postgres"), "-D", str(self._folder.pgdata), "-p", str(port), *settings]

    def _becomes_ready(self, process: subprocess.Popen[str], deadline: float) -> bool:
        """True when the server accepts connections, False when it ended for a reason that passes."""
        while time.monotonic() < deadline:
            ended = process.poll() is not None
            found = read_pid_file(self._folder.pgdata)
            if found and found.pid == process.pid and found.status == "ready":
                return True
            if ended:
                said = self.log_file.read_text(errors="replace")
                if any(trouble in said for trouble in _PASSING_TROUBLE):
                    return False
                raise EmbeddedPostgresError(
                    f"PostgreSQL did not start (exit code {process.returncode}). "
                    f"The end of {self.log_file}:\n{_tail(said)}"
                )
            time.sleep(_POLL_INTERVAL.total_seconds())
        raise EmbeddedPostgresError(f"PostgreSQL was not ready within {_START_LIMIT}; see {self.log_file}.")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return probe.getsockname()[1]


def _shut_down(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_STOP_LIMIT.total_seconds())
    except subprocess.TimeoutExpired:
        _log.warning("PostgreSQL did not shut down within %s and is cut short; its next start recovers", _STOP_LIMIT)
        process.send_signal(signal.SIGQUIT)
        process.wait()


def _tail(text: str) -> str:
    return os.linesep.join(text.splitlines()[-_LOG_TAIL_LINES:])
