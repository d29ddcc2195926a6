"""The file postmaster.pid of a cluster, and the server process that it names.

The lines of the file: 1 process id, 2 data folder, 3 start time, 4 port, 5 socket folder, 6 address, 7 shared memory,
8 status. After a crash, the file remains, and another process may have the process id by the time the file is read.
"""

import logging
import signal
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

_log = logging.getLogger(__name__)

_PORT_LINE = 3
_STATUS_LINE = 7
_FAST_SHUTDOWN_TIMEOUT = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class PidFile:
    """The content of postmaster.pid. The status is empty until the server writes one."""

    pid: int
    status: str
    port: int


def read_pid_file(pgdata: Path) -> PidFile | None:
    """Read the postmaster.pid of a cluster; None if it is missing or not written yet."""
    try:
        lines = (pgdata / "postmaster.pid").read_text().splitlines()
        status = lines[_STATUS_LINE].strip() if len(lines) > _STATUS_LINE else ""
        return PidFile(int(lines[0]), status, int(lines[_PORT_LINE]) if len(lines) > _PORT_LINE else 0)
    except (FileNotFoundError, ValueError, IndexError):
        return None


def stop_orphaned_server(pgdata: Path) -> None:
    """Stop a server that outlived its manager, and remove the postmaster.pid of a dead server.

    Only the owner of the data folder may call this, so that a running server has no other owner. The fast shutdown
    loses no data. After 60 seconds, an immediate shutdown follows; the next start recovers from the write-ahead log.
    """
    found = read_pid_file(pgdata)
    if found is None or not _stop(found.pid, pgdata):
        # PostgreSQL would refuse to start if another program had the process id of the dead server by now.
        (pgdata / "postmaster.pid").unlink(missing_ok=True)


def _stop(pid: int, pgdata: Path) -> bool:
    """Stop the server, and return whether there is one."""
    # Importing psutil takes 30 ms, and few starts need it.
    import psutil  # noqa: PLC0415

    try:
        server = psutil.Process(pid)
        is_server_of_cluster = (
            server.status() != psutil.STATUS_ZOMBIE
            and server.name().startswith("postgres")
            and Path(server.cwd()).samefile(pgdata)
        )
    except (psutil.Error, OSError):
        return False
    if not is_server_of_cluster:
        return False
    _log.warning("stopping an embedded database that outlived its manager", extra={"pid": pid})
    try:
        server.send_signal(signal.SIGINT)
        server.wait(_FAST_SHUTDOWN_TIMEOUT.total_seconds())
    except psutil.TimeoutExpired:
        server.send_signal(signal.SIGQUIT)
        server.wait()
    except psutil.NoSuchProcess:
        pass
    return True
