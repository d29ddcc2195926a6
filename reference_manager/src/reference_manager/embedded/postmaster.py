"""What postmaster.pid says about the server of a cluster, and what is really true.

The file's lines: 1 process id, 2 data folder, 3 start time, 4 port, 5 socket folder, 6 address, 7 shared memory,
8 status. A crash leaves it behind, and its process id may be anybody's by the time it is read.
"""

import logging
import signal
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psutil

_log = logging.getLogger(__name__)

_STATUS_LINE = 7
_FAST_SHUTDOWN_LIMIT = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class PidFile:
    """postmaster.pid as read: the process id, and the status, empty until the server writes one."""

    pid: int
    status: str


def read_pid_file(pgdata: Path) -> PidFile | None:
    """The cluster's postmaster.pid; None when there is none or it is not written yet."""
    try:
        lines = (pgdata / "postmaster.pid").read_text().splitlines()
        return PidFile(int(lines[0]), lines[_STATUS_LINE].strip() if len(lines) > _STATUS_LINE else "")
    except (FileNotFoundError, ValueError, IndexError):
        return None


def stop_orphaned_server(pgdata: Path) -> None:
    """Make the cluster free for a new server: end one that outlived its manager, forget one that is dead.

    Called by the owner of the data folder's lock alone, so a server found here is nobody's. Its fast shutdown loses
    nothing; should it take over a minute, it is cut short, and the next start recovers from the write-ahead log.
    """
    found = read_pid_file(pgdata)
    server = _server_process(found.pid, pgdata) if found else None
    if server is None:
        # PostgreSQL would refuse to start if another program has the number of the dead server by now.
        (pgdata / "postmaster.pid").unlink(missing_ok=True)
        return
    _log.warning("ending the PostgreSQL server %d, which outlived its manager", server.pid)
    try:
        server.send_signal(signal.SIGINT)
        server.wait(_FAST_SHUTDOWN_LIMIT.total_seconds())
    except psutil.TimeoutExpired:
        server.send_signal(signal.SIGQUIT)
        server.wait()
    except psutil.NoSuchProcess:
        return


def _server_process(pid: int, pgdata: Path) -> psutil.Process | None:
    try:
        process = psutil.Process(pid)
        is_ours = (
            process.status() != psutil.STATUS_ZOMBIE
            and process.name().startswith("postgres")
            and Path(process.cwd()).samefile(pgdata)
        )
    except (psutil.Error, OSError):
        return None
    return process if is_ours else None
