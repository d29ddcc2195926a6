"""A standby of a PostgreSQL."""

import signal
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from reference_manager.embedded import EmbeddedPostgres
from reference_manager.embedded.account import server_account
from reference_manager.embedded.binaries import find_binaries, reachable_binaries
from reference_manager.embedded.postmaster import read_pid_file
from reference_manager.embedded.process import run_program, start_server


def copy_server(primary: EmbeddedPostgres, pgdata: Path) -> None:
    """Copy a running server to a new folder. A server that is started there is a standby."""
    parts = urlsplit(primary.url)
    account = server_account(pgdata)
    binaries = reachable_binaries(find_binaries(), account)
    pgdata.mkdir(mode=0o700)
    if account:
        account.take_ownership(pgdata)
    source = f"host={parts.hostname} port={parts.port} user={parts.username} password={parts.password}"
    copy = [str(binaries / "pg_basebackup"), "-D", str(pgdata), "-d", source, "--write-recovery-conf"]
    run_program([*copy, "--checkpoint=fast", "--wal-method=stream"], account)


@contextmanager
def standby(primary: EmbeddedPostgres, folder: Path, port: int) -> Generator[str]:
    """Copy a running server, start the copy as its standby, and yield the URL of the copy.

    Args:
        primary: The server.
        folder: The folder for the copy.
        port: The port of the standby.
    """
    pgdata = folder / "standby"
    copy_server(primary, pgdata)
    account = server_account(pgdata)
    settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
    command = [str(reachable_binaries(find_binaries(), account) / "postgres"), "-D", str(pgdata), "-p", str(port)]
    command += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    with (folder / "standby.log").open("w") as log:
        process = start_server(command, account, log)
    try:
        while True:
            assert process.poll() is None, (folder / "standby.log").read_text()
            found = read_pid_file(pgdata)
            if found and found.status == "ready":
                break
            time.sleep(0.05)
        yield primary.url.replace(f":{urlsplit(primary.url).port}/", f":{port}/")
    finally:
        process.send_signal(signal.SIGQUIT)
        process.wait()
