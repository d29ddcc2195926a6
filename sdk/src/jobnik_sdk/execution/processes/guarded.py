"""Starts a process of multiprocessing as the child of a guard, which is the child of this process."""

import io
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import popen_spawn_posix, process, reduction, resource_tracker, spawn, util
from multiprocessing.context import SpawnProcess, set_spawning_popen
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final, NamedTuple, Self, cast

from typing_extensions import override

from jobnik_sdk.execution import supervisor

UNKNOWN_EXIT_CODE: Final = 256
"""The exit code of a process that the application has waited for, with `os.wait` for example."""
_LAST_STANDARD_FILE: Final = 2
_STATUS: Final = Path("/proc/self/status")
_ROOT: Final = "/"


class StartConditions(NamedTuple):
    """What a process inherits, as it was before the first task.

    Handlers that run in this process can change all of it for the whole process. Without a copy, the processes of other
    handlers would start in a directory that no longer exists, for example, or without environment variables.
    """

    directory: str
    environment: Mapping[str, str]
    umask: int
    """-1 if it is not known, because only Linux tells it without changing it."""
    preparation: Mapping[str, Any]
    """What multiprocessing passes to a process: `sys.path`, `sys.argv`, the main module."""

    @classmethod
    def current(cls) -> Self:
        """Return those of this process."""
        try:
            directory = os.getcwd()  # noqa: PTH109 as multiprocessing does
        except FileNotFoundError:
            directory = vars(process)["ORIGINAL_DIR"] or _ROOT  # untyped; None if it did not exist either
            os.chdir(directory)
        preparation = spawn.get_preparation_data("") | {"sys_argv": sys.argv.copy()}
        del preparation["dir"]  # the process starts there
        return cls(directory, os.environ.copy(), _umask(), preparation)


class GuardedProcess(SpawnProcess):
    """A process that ends with this one, together with everything that it started.

    Its process id and exit code are those of the guard, which ends with the exit code of its child.
    """

    def __init__(self, start_conditions: StartConditions, **options: Any) -> None:  # noqa: ANN401 those of multiprocessing
        super().__init__(**options)
        self.start_conditions = start_conditions

    @override
    def __getstate__(self) -> dict[str, Any]:
        """Leave out what the process has inherited already."""
        return {name: value for name, value in vars(self).items() if name != "start_conditions"}

    @staticmethod
    @override
    def _Popen(process_obj: BaseProcess) -> "_GuardedPopen":
        return _GuardedPopen(cast("GuardedProcess", process_obj))


class _GuardedPopen(popen_spawn_posix.Popen):
    def __init__(self, process_obj: GuardedProcess) -> None:
        """Start the process; as in the base classes, but without flushing standard output, which may be blocked."""
        self._fds: list[int] = []
        self.returncode: int | None = None
        self._launch(process_obj)

    def _launch(self, process_obj: GuardedProcess) -> None:
        """Start the process; as in the base class, but with the guard's command line in front.

        The sentinel becomes readable when the guard ends, which is the only process that holds its other end open.
        """
        start_conditions = process_obj.start_conditions
        tracker = resource_tracker.getfd() or 0  # typed as optional, but it is never None here
        start = io.BytesIO()
        set_spawning_popen(self)
        try:
            reduction.dump({**start_conditions.preparation, "name": process_obj.name}, start)
            reduction.dump(process_obj, start)
        finally:
            set_spawning_popen(None)
        self.sentinel, guard_end = os.pipe()
        child_end, start_fd = os.pipe()
        self.finalizer = util.Finalize(self, _close, (self.sentinel, start_fd))
        try:
            program = spawn.get_command_line(tracker_fd=tracker, pipe_handle=child_end)
            arguments = supervisor.command("guard", str(os.getpid()), str(guard_end), *map(os.fsdecode, program))
            self.pid = _start(arguments, [*self._fds, tracker, child_end, guard_end], start_conditions)
        finally:
            os.close(guard_end)
            os.close(child_end)
        with suppress(BrokenPipeError), os.fdopen(start_fd, "wb", closefd=False) as stream:  # the guard has just died
            stream.write(start.getbuffer())

    @override
    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """Return the exit code; None if the process has not ended yet."""
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, flag)
            except ChildProcessError:
                self.returncode = UNKNOWN_EXIT_CODE
            else:
                self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode


def _start(arguments: Sequence[str], files: Sequence[int], start_conditions: StartConditions) -> int:
    """Start a program with these open files, and return its process id."""
    options: dict[str, Any] = {
        "pass_fds": files,
        "env": start_conditions.environment,
        "umask": start_conditions.umask,
        "restore_signals": False,
    }
    try:
        program = subprocess.Popen(arguments, cwd=start_conditions.directory, **options)  # noqa: S603 our own program
    except OSError:
        if Path(start_conditions.directory).is_dir():
            raise
        program = subprocess.Popen(arguments, cwd=_ROOT, **options)  # noqa: S603 our own program
    program.returncode = 0  # the caller waits for it; otherwise, subprocess would do so, too
    return program.pid


def fill_standard_files() -> None:
    """Open those of standard input, output and error that are closed.

    Otherwise, the next files would get their numbers, and programs that a handler starts would read from or write to a
    connection of the worker.
    """
    while (file := os.open(os.devnull, os.O_RDWR)) <= _LAST_STANDARD_FILE:
        os.set_inheritable(file, True)  # noqa: FBT003 declared so
    os.close(file)


def _umask() -> int:
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "Umask":
                return int(value, 8)
    return -1


def _close(*files: int) -> None:
    for file in files:
        os.close(file)
