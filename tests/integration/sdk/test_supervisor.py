"""The guard of a handler's process, with programs in place of the handler."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from jobnik_sdk.execution import supervisor
from jobnik_sdk.execution.processes.exits import describe_exit

from tests.support.processes import wait_until_gone

_HARMLESS = {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH}
_STOPPING = {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
_IGNORED_BY_PYTHON = {signal.SIGPIPE, signal.SIGXFSZ}
_OF_THE_C_LIBRARY = {32, 33}
"""Signals that threads use among themselves; a process may have inherited that they are ignored."""
_SIGNALS = [number for number in range(1, 65) if number not in _STOPPING | _OF_THE_C_LIBRARY]


def _start(*command: str) -> tuple[subprocess.Popen[bytes], int]:
    """Start a program below a guard; return the guard and a file that is readable until it has ended."""
    ours, exit_fd = os.pipe()
    arguments = supervisor.command("guard", str(os.getpid()), str(exit_fd), *command)
    guard = subprocess.Popen(arguments, pass_fds=[exit_fd], stdout=subprocess.PIPE)  # noqa: S603 our own program
    os.close(exit_fd)
    return guard, ours


def _end(guard: subprocess.Popen[bytes], ours: int) -> tuple[int, list[int]]:
    """Wait for the end of a guard; return its exit code and the process ids that its program has written."""
    output, _ = guard.communicate()
    assert os.read(ours, 1) == b""
    os.close(ours)
    return guard.returncode, [int(pid) for pid in output.split()]


def test_every_signal_is_named() -> None:
    """A guard ends by the signal that ended its program, real-time signals included, and its description names it."""
    started = {number: _start("/bin/sh", "-c", f"kill -{number} $$; exit 0") for number in _SIGNALS}
    for number, process in started.items():
        code, _ = _end(*process)
        if number in _HARMLESS | _IGNORED_BY_PYTHON:
            assert code == 0, number
        elif number == signal.SIGINT:
            assert code == -signal.SIGINT  # after its traceback, Python ends by the signal
        else:
            assert code == -number, number
            name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
            assert describe_exit(code) == f"killed by {name}"


@pytest.mark.parametrize(("end", "code"), [("exit 3", 3), ("kill -9 $$", -9), ("kill -37 $$", -37)])
async def test_programs_end_with_the_handler(end: str, code: int) -> None:
    """Programs in sessions of their own, and those whose parents have ended, are killed when the handler ends."""
    script = f"""
        setsid sleep 1000000 & echo $!
        setsid sh -c 'sleep 1000000 & echo $!' &
        wait $!; {end}
    """
    ended, programs = _end(*_start("/bin/sh", "-c", script))
    assert ended == code
    assert len(programs) == 2
    await wait_until_gone(programs)


@pytest.mark.parametrize(
    ("number", "script"),
    [
        (supervisor.KILL, "setsid sleep 1000000 & echo $!; echo $$; exec sleep 1000000"),
        (signal.SIGKILL, "echo $$; echo $$; exec sleep 1000000"),
    ],
)
async def test_handler_is_killed_on_request_and_with_its_guard(number: signal.Signals, script: str) -> None:
    """A guard ignores signals, except the one that its worker sends. If it is killed, the handler ends as well."""
    guard, ours = _start("/bin/sh", "-c", script)
    assert guard.stdout is not None
    programs = [int(guard.stdout.readline()) for _ in range(2)]
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        guard.send_signal(ignored)
    assert guard.poll() is None
    guard.send_signal(number)
    assert _end(guard, ours) == (-signal.SIGKILL, [])
    await wait_until_gone(programs)


def test_guard_takes_over_the_signal_although_it_is_told_to_kill() -> None:
    """The worker often tells a guard to kill a handler that is ending already. The handler's own signal counts."""
    for _ in range(10):
        assert _end(*_start("/bin/sh", "-c", f"kill -{supervisor.KILL} $PPID; kill -37 $$"))[0] in {-37, -9}


async def test_guard_without_linux(tmp_path: Path) -> None:
    """On other systems, a guard checks its parent twice a second, and kills the process group of the handler."""
    program = tmp_path / "guard.py"
    program.write_text(
        f"import runpy, sys; sys.platform = 'darwin'; runpy.run_path({supervisor.__file__!r}, run_name='__main__')"
    )
    script = "sleep 1000000 & echo $!; echo $$; exec sleep 1000000"
    parent = (
        "import os, subprocess, sys; r, w = os.pipe();"
        "subprocess.Popen([*sys.argv[1:3], 'guard', str(os.getpid()), str(w), *sys.argv[3:]], pass_fds=[w]);"
        "input()"
    )
    command = [sys.executable, "-c", parent, sys.executable, str(program), "/bin/sh", "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:  # noqa: ASYNC220, S603 our own program
        assert worker.stdout is not None
        programs = [int(worker.stdout.readline()) for _ in range(2)]
        worker.kill()
    await wait_until_gone(programs)
