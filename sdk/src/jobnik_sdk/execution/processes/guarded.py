"""Starts a process of multiprocessing as the child of a guard, which is the child of this process."""

import io
import os
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import popen_spawn_posix, reduction, resource_tracker, spawn
from multiprocessing.context import SpawnProcess, set_spawning_popen
from typing import Any, ClassVar, Final

from typing_extensions import override

from jobnik_sdk.execution import supervisor
from jobnik_sdk.execution.processes import exits, fork_server
from jobnik_sdk.execution.processes.fork_client import ForkServer
from jobnik_sdk.execution.processes.start_conditions import StartConditions, memory_file

_LAST_STANDARD_FILE: Final = 2
_PID_BYTES: Final = 32


class GuardedProcess:
    """A process that ends with this one, together with everything that it started.

    `pid` is the process id of its guard, which ends with the exit code of its child. It is None until the fork server
    has created the guard: when `sentinel` becomes readable, call `read_pid`.

    Args:
        process: What the process runs. It is not started in the usual way.
        start_conditions: What the process inherits.
        fork_server: Forks the process; None: a new interpreter is started.
    """

    def __init__(
        self, process: SpawnProcess, start_conditions: StartConditions, fork_server: ForkServer | None
    ) -> None:
        self.pid: int | None = None
        self._exit_code: int | None = None
        self.sentinel, guard_end = os.pipe()
        try:
            child_end, self._parent_end = os.pipe()
        except OSError:  # too many files are open
            os.close(self.sentinel)
            os.close(guard_end)
            raise
        try:
            if fork_server is None or not _fork(fork_server, process, guard_end, child_end):
                self.pid = _spawn(process, start_conditions, guard_end, child_end, self._parent_end)
        except BaseException:
            self.close()
            raise
        finally:
            os.close(guard_end)
            os.close(child_end)

    def read_pid(self) -> int | None:
        """Read the process id of the guard; None: the process has not been started, and never will be."""
        message = os.read(self.sentinel, _PID_BYTES)
        self.pid = int(message) if message else None
        return self.pid

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """Return the exit code; None if the process has not ended yet."""
        if self._exit_code is None and self.pid is not None:
            self._exit_code = exits.poll(self.pid, flag)
        return self._exit_code

    def close(self) -> None:
        """Close the files that show to each process whether the other one runs."""
        os.close(self.sentinel)
        os.close(self._parent_end)


class _Pickled(popen_spawn_posix.Popen):
    """What multiprocessing passes to a process: `start` in a file, and further `files`, to which `start` refers."""

    def __init__(self, process: SpawnProcess, start_conditions: StartConditions) -> None:
        self._fds: list[int] = []
        start = io.BytesIO()
        set_spawning_popen(self)
        try:
            reduction.dump({**start_conditions.preparation, "name": process.name}, start)
            reduction.dump(process, start)
        finally:
            set_spawning_popen(None)
        self.start = start.getbuffer()

    @property
    def files(self) -> Sequence[int]:
        return self._fds


class _PickledForFork(_Pickled):
    """The same for a process that receives the files from the fork server, and so with other file descriptors."""

    DupFd: ClassVar[Any] = fork_server.ReceivedFile

    @override
    def duplicate_for_child(self, fd: int) -> int:
        self._fds.append(fd)
        return len(self._fds) - 1


def _fork(server: ForkServer, process: SpawnProcess, guard_end: int, child_end: int) -> bool:
    """Ask the fork server for a process; return False if it must be spawned."""
    pickled = _PickledForFork(process, server.start_conditions)
    start = memory_file(pickled.start)
    try:
        tracker = resource_tracker.getfd() or 0  # typed as optional, but it is never None here
        files = fork_server.InheritedFiles(0, 1, 2, guard_end, start, child_end, tracker)
        return server.fork([*files, *pickled.files])
    finally:
        os.close(start)


def _spawn(process: SpawnProcess, conditions: StartConditions, guard_end: int, child_end: int, parent_end: int) -> int:
    """Start an interpreter for a process, and return the process id of its guard."""
    pickled = _Pickled(process, conditions)
    tracker = resource_tracker.getfd() or 0
    program = spawn.get_command_line(tracker_fd=tracker, pipe_handle=child_end)
    arguments = supervisor.command("guard", str(os.getpid()), str(guard_end), *map(os.fsdecode, program))
    pid = conditions.start(arguments, [*pickled.files, tracker, child_end, guard_end])
    with suppress(BrokenPipeError), os.fdopen(parent_end, "wb", closefd=False) as stream:  # the guard has just died
        stream.write(pickled.start)
    return pid


def fill_standard_files() -> None:
    """Open those of standard input, output and error that are closed.

    Otherwise, the next files would get their numbers, and programs that a handler starts would read from or write to a
    connection of the worker.
    """
    while (file := os.open(os.devnull, os.O_RDWR)) <= _LAST_STANDARD_FILE:
        os.set_inheritable(file, True)  # noqa: FBT003 declared so
    os.close(file)
