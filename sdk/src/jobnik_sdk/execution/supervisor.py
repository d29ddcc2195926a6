"""Runs a program as its parent: ends everything that the program leaves behind, and reaps orphans.

This file is a program of its own, so that it stays small: it imports nothing but the standard library, and
Python runs it without site-packages. It has two uses:

- `guard`: the parent of a handler's process. It waits in a system call, so it can kill the handler whatever code the
  handler is running. It does so when the worker dies or requests it, and then kills the programs that the handler
  started. On Linux it finds all of them, because orphans become its children; elsewhere, only those that stayed in the
  process group of the handler. Then it ends as the handler did: with the same exit code, or by the same signal.
- `init`: the first process of a container (PID 1). It passes signals on to the program, and reaps orphans, which
  would otherwise remain as zombies.
"""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Final, NoReturn

KILL: Final = signal.SIGUSR1
"""The signal that makes a guard kill the handler and everything that it started, and end."""

_IS_LINUX: Final = sys.platform == "linux"
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_CHILD_SUBREAPER: Final = 36
_PARENT_POLL_SECONDS: Final = 0.5
_KILL_SECONDS: Final = 5.0
"""How long to wait for killed processes: one that is blocked in the kernel may take forever."""


def command(mode: str, *arguments: str) -> list[str]:
    """Return the command line that runs this file as a program, isolated from the environment and the user's code."""
    return [sys.executable, "-I", "-S", __file__, mode, *arguments]


def is_needed() -> bool:
    """Return whether this process is PID 1 and its command line can be run again, which a script from stdin cannot."""
    return os.getpid() == 1 and sys.argv[0] not in {"", "-"}


def exec_init() -> NoReturn:
    """Replace this process, which is PID 1, by an `init` that runs the same command line again as its child."""
    sys.stdout.flush()
    sys.stderr.flush()
    arguments = command("init", sys.executable, *sys.orig_argv[1:])
    os.execv(arguments[0], arguments)  # noqa: S606 our own program


def _guard(worker: int, exit_fd: int, arguments: list[str]) -> NoReturn:
    """Run a program as a handler's process."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    guard(worker, exit_fd)
    _exec(arguments, mask)


def guard(worker: int, exit_fd: int) -> None:
    """Fork a handler's process, and become its guard. Return only in the handler's process.

    Call it with all signals blocked, in a child of the worker. `exit_fd` stays open until the guard ends, and only the
    guard has it open.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if the worker ignores it, so would this process and the handler
    os.setsid()  # so that Ctrl-C in a terminal reaches only the worker
    pid = os.getpid()
    if _IS_LINUX:
        # The kernel sends this signal when the thread that started this process ends. That thread runs the worker's
        # event loop, so the worker has then ended, or has abandoned this process.
        _prctl(_PR_SET_PDEATHSIG, KILL)
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    else:
        signal.setitimer(signal.ITIMER_REAL, _PARENT_POLL_SECONDS, _PARENT_POLL_SECONDS)
    handler = os.fork()
    if not handler:
        os.close(exit_fd)
        os.setpgid(0, 0)
        if _IS_LINUX:
            end_with_parent(pid)
        return
    _close_files(except_for=exit_fd)
    status: int | None = None
    while status is None and os.getppid() == worker:
        if signal.sigwait({signal.SIGCHLD, signal.SIGALRM, KILL}) == KILL:
            break
        status = _reap().get(handler)
    statuses = _kill_descendants(handler, {} if status is None else {handler: status})
    _exit_like(statuses.get(handler, signal.SIGKILL))


def end_with_parent(parent: int) -> None:
    """Let the kernel kill this process when the thread that started it ends (Linux only)."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended already
        os._exit(1)


def _init(arguments: list[str]) -> NoReturn:
    """Run a program as the child of PID 1."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    program = os.fork()
    if not program:
        os.setsid()  # otherwise Ctrl-C in the terminal of a container would reach the program twice
        _exec(arguments, mask)
    while True:
        number = signal.sigwait(signal.valid_signals())
        if number != signal.SIGCHLD:
            os.kill(program, number)
            continue
        status = _reap().get(program)
        if status is not None:  # the exit of PID 1 ends all other processes
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def _exec(arguments: list[str], mask: Iterable[int]) -> NoReturn:
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.execv(arguments[0], arguments)  # noqa: S606 the command line of our caller
    finally:
        os._exit(127)


def _close_files(*, except_for: int) -> None:
    """Close the files that only the handler needs, so that their other ends notice when the handler has ended."""
    os.closerange(3, except_for)
    os.closerange(except_for + 1, os.sysconf("SC_OPEN_MAX"))


def _reap() -> dict[int, int]:
    """Collect the children that have ended, and return their wait statuses by process id."""
    statuses: dict[int, int] = {}
    with suppress(ChildProcessError):  # there are no more children
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            statuses[pid] = status
    return statuses


def _kill_descendants(handler: int, statuses: dict[int, int]) -> dict[int, int]:
    """Kill the handler, unless it has ended, and all programs that it started.

    Takes and returns wait statuses by process id.
    """
    if not _IS_LINUX:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(handler, signal.SIGKILL)
    deadline, pause = time.monotonic() + _KILL_SECONDS, 0.001
    while time.monotonic() < deadline:
        # A child's own children become children of this process when it ends, so this finds all descendants.
        killed = [pid for pid in _children() if _kill(pid)] if _IS_LINUX else []
        ended = _reap()
        statuses = statuses | ended
        if not ended:
            if handler in statuses and not killed:
                break
            time.sleep(pause)
            pause = min(2 * pause, 0.1)
    return statuses


def _children() -> list[int]:
    """Return the process ids of this process's children."""
    parent, children = os.getpid(), list[int]()
    for name in os.listdir("/proc"):  # noqa: PTH208 pathlib would have to be imported
        with suppress(OSError, ValueError):  # not a process, or it has just ended
            with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123 pathlib would have to be imported
                # The name of the program comes in parentheses, and may contain any character.
                _state, ppid, *_ = file.read().rpartition(b")")[2].split()
            if int(ppid) == parent:
                children.append(int(name))
    return children


def _kill(pid: int) -> bool:
    """Kill a child; return False if it has ended, or if it runs as another user and may not be killed."""
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _exit_like(status: int) -> NoReturn:
    """End in the same way as the child with this wait status."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        if _IS_LINUX:
            _prctl(_PR_SET_DUMPABLE, 0)  # a core dump, if there is one, is the child's
        with suppress(OSError, ValueError):  # SIGKILL, and signals that Python does not know and so has not blocked
            signal.signal(-code, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {-code})  # only this one: others may be pending as well
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 128 - code)


def _prctl(option: int, value: int) -> None:
    """Set an attribute of this process."""
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    match sys.argv[1]:
        case "guard":
            _guard(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
        case _:
            _init(sys.argv[2:])
