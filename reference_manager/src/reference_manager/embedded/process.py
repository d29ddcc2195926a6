"""Runs the programs of PostgreSQL under the account of the server, and never longer than the manager."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from reference_manager.embedded.account import Account
from reference_manager.embedded.errors import EmbeddedPostgresError

_PR_SET_PDEATHSIG = 1


def end_with_parent(by: signal.Signals) -> Callable[[], None] | None:
    """Return a `preexec_fn` for a child process that must end with this process, even if this process is killed.

    Args:
        by: The signal that the child gets when the thread that started it ends.

    Returns:
        The function on Linux; None elsewhere, because other systems do not support this.
    """
    if sys.platform != "linux":
        return None
    parent = os.getpid()
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def request_signal() -> None:
        prctl(_PR_SET_PDEATHSIG, by)
        if os.getppid() != parent:
            os._exit(1)

    return request_signal


def run_program(
    command: Sequence[str], account: Account | None, *, stdin: str = "", inherits: Sequence[int] = ()
) -> None:
    """Run a program until it ends.

    Args:
        command: The program and its arguments.
        account: The account to run it under; None for the current account.
        stdin: The input of the program.
        inherits: File descriptors that the program and its children inherit.

    Raises:
        EmbeddedPostgresError: The program failed; the message ends with its output.
    """
    process = _popen(command, account, stdin=subprocess.PIPE, output=subprocess.PIPE, inherits=inherits)
    try:
        output, _ = process.communicate(stdin)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if process.returncode != 0:
        program = Path(command[0]).name
        raise EmbeddedPostgresError(f"{program} failed (exit code {process.returncode}):\n{output.strip()}")


def start_server(command: Sequence[str], account: Account | None, log: TextIO) -> subprocess.Popen[str]:
    """Start a server that writes to `log`. It does not get Ctrl-C from the terminal: the manager stops it last."""
    return _popen(command, account, stdin=subprocess.DEVNULL, output=log)


def _popen(
    command: Sequence[str], account: Account | None, *, stdin: int, output: int | TextIO, inherits: Sequence[int] = ()
) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(  # noqa: S603 - our own binaries
            command,
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
            env=_environment(),
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            start_new_session=True,
            pass_fds=inherits,
            # On SIGINT, PostgreSQL shuts down fast: it closes the connections and writes all data to disk.
            preexec_fn=end_with_parent(signal.SIGINT),  # noqa: PLW1509 - at process start no other thread holds a lock
        )
    except OSError as error:
        user = f" as {account.name}" if account else ""
        raise EmbeddedPostgresError(f"{command[0]} cannot be run{user}: {error}.") from error


def _environment() -> dict[str, str]:
    # A user's PGDATA or PGOPTIONS are for other servers. The manager parses messages, so they must be in English.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return environment | {"LC_ALL": "C"}
