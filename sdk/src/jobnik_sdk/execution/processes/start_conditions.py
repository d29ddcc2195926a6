"""What the processes of handlers inherit."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import process, spawn
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

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

    def start(self, arguments: Sequence[str], files: Sequence[int], **options: Any) -> int:  # noqa: ANN401 those of Popen
        """Start a program under these conditions with these open files, and return its process id."""
        options |= {
            "pass_fds": files,
            "env": self.environment,
            "umask": self.umask,
            "restore_signals": False,
        }
        try:
            program = subprocess.Popen(arguments, cwd=self.directory, **options)  # noqa: S603 our own program
        except OSError:
            if Path(self.directory).is_dir():
                raise
            program = subprocess.Popen(arguments, cwd=_ROOT, **options)  # noqa: S603 our own program
        program.returncode = 0  # the caller waits for it; otherwise, subprocess would do so, too
        return program.pid


def memory_file(content: bytes | memoryview) -> int:
    """Return a file descriptor with this content (Linux only). In contrast to a pipe, it needs no reader meanwhile."""
    file = os.memfd_create("jobnik")
    with os.fdopen(file, "wb", closefd=False) as stream:
        stream.write(content)
    os.lseek(file, 0, os.SEEK_SET)
    return file


def _umask() -> int:
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "Umask":
                return int(value, 8)
    return -1
