"""How PostgreSQL's programs are run: under the right account, and never longer than the manager."""

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
    """What a child does before its program (`preexec_fn`), so that even a kill -9 of this process ends it.

    It is sent `by` when the thread that started it ends. Linux alone can do this: None elsewhere.
    """
    if sys.platform != "linux":
        return None
    parent = os.getpid()
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def ask_for_signal() -> None:
        prctl(_PR_SET_PDEATHSIG, by)
        if os.getppid() != parent:
            os._exit(1)

    return ask_for_signal


def run_program(
    command: Sequence[str], account: Account | None, *, stdin: str = "", inherits: Sequence[int] = ()
) -> None:
    """Run a program to its end; it and its children inherit these file descriptors.

    Raises:
        EmbeddedPostgresError: It failed; the message ends with what it said.
    """
    process = _popen(command, account, stdin=subprocess.PIPE, output=subprocess.PIPE, inherits=inherits)
    try:
        said, _ = process.communicate(stdin)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if process.returncode != 0:
        raise EmbeddedPostgresError(f"{Path(command[0]).name} failed (exit code {process.returncode}):\n{said.strip()}")


def start_server(command: Sequence[str], account: Account | None, log: TextIO) -> subprocess.Popen[str]:
    """Start a server that writes into `log`. It hears nothing of the terminal's Ctrl-C: the manager stops it, last."""
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
            # SIGINT is PostgreSQL's fast shutdown: it ends the connections and writes everything down.
            preexec_fn=end_with_parent(signal.SIGINT),  # noqa: PLW1509 - at process start no other thread holds a lock
        )
    except OSError as error:
        who = f" as {account.name}" if account else ""
        raise EmbeddedPostgresError(f"{command[0]} cannot be run{who}: {error}.") from error


def _environment() -> dict[str, str]:
    # A user's PGDATA or PGOPTIONS are meant for other servers, and we read messages, so they must be in English.
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return ours | {"LC_ALL": "C"}
