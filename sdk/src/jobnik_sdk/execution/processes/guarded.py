"""Starts a process of multiprocessing as the child of a guard, which is the child of this process."""

import io
import os
from contextlib import suppress
from multiprocessing import popen_spawn_posix, process, reduction, resource_tracker, spawn, util
from multiprocessing.context import SpawnProcess, set_spawning_popen
from multiprocessing.process import BaseProcess
from typing import Final

from typing_extensions import override

from jobnik_sdk.execution import supervisor

UNKNOWN_EXIT_CODE: Final = 256
"""The exit code of a process that the application has waited for, with `os.wait` for example."""
_START_DIRECTORY: Final[str] = vars(process)["ORIGINAL_DIR"] or "/"  # untyped; None if the folder was deleted


class GuardedProcess(SpawnProcess):
    """A process that ends with this one, together with everything that it started.

    Its process id and exit code are those of the guard, which ends with the exit code of its child.
    """

    @staticmethod
    @override
    def _Popen(process_obj: BaseProcess) -> "_GuardedPopen":
        return _GuardedPopen(process_obj)


class _GuardedPopen(popen_spawn_posix.Popen):
    def __init__(self, process_obj: BaseProcess) -> None:
        """Start the process; as in the base classes, but without flushing standard output, which may be blocked."""
        self._fds: list[int] = []
        self.returncode: int | None = None
        self._launch(process_obj)

    def _launch(self, process_obj: BaseProcess) -> None:
        """Start the process; as in the base class, but with the guard's command line in front.

        The sentinel becomes readable when the guard ends, which is the only process that holds its other end open.
        """
        _leave_deleted_directory()
        tracker = resource_tracker.getfd() or 0  # typed as optional, but it is never None here
        start = io.BytesIO()
        set_spawning_popen(self)
        try:
            reduction.dump(spawn.get_preparation_data(process_obj.name), start)
            reduction.dump(process_obj, start)
        finally:
            set_spawning_popen(None)
        self.sentinel, guard_end = os.pipe()
        child_end, start_fd = os.pipe()
        self.finalizer = util.Finalize(self, _close, (self.sentinel, start_fd))
        try:
            program = spawn.get_command_line(tracker_fd=tracker, pipe_handle=child_end)
            arguments = supervisor.command("guard", str(os.getpid()), str(guard_end), *map(os.fsdecode, program))
            files = [*self._fds, tracker, child_end, guard_end]
            self.pid = util.spawnv_passfds(os.fsencode(arguments[0]), arguments, files)
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


def _leave_deleted_directory() -> None:
    """Return to the first working directory if the current one is gone, because a process cannot be started there."""
    try:
        os.getcwd()  # noqa: PTH109 as multiprocessing does
    except FileNotFoundError:
        os.chdir(_START_DIRECTORY)


def _close(*files: int) -> None:
    for file in files:
        os.close(file)
