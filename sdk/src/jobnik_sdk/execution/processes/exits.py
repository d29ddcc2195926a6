"""Exit codes of processes, as subprocess has them: the negative number of a signal that has killed the process."""

import os
import signal
from typing import Final

UNKNOWN_EXIT_CODE: Final = 256
"""The exit code of a process that the application has waited for, with `os.wait` for example."""


def poll(pid: int, flag: int = os.WNOHANG) -> int | None:
    """Return the exit code of a child; None if it has not ended yet."""
    try:
        ended, status = os.waitpid(pid, flag)
    except ChildProcessError:
        return UNKNOWN_EXIT_CODE
    return os.waitstatus_to_exitcode(status) if ended else None


def describe_exit(exit_code: int | None) -> str:
    """Return a description of an exit code; the name of its signal, if the process was killed by one."""
    if exit_code is None or exit_code == UNKNOWN_EXIT_CODE:
        return "unknown exit code"
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        return f"killed by {signal.Signals(-exit_code).name}"
    except ValueError:  # most real-time signals have no name
        return f"killed by signal {-exit_code}"
