"""The main program of a worker's fork server. It has imported what the processes of handlers need, and forks them.

The server does as little as possible: it runs no code of the application, has one thread, and holds no file of the
worker except its connection. For each request, it creates a sibling, which becomes the guard of a new process. The
guard is a child of the worker, as if the worker had started it, so it does not need the server any more.
"""

import ctypes
import gc
import importlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from io import TextIOWrapper
from multiprocessing import resource_tracker, spawn
from typing import Final, NamedTuple, cast

from jobnik_sdk.execution import supervisor

MAX_FILES: Final = 64
"""How many files a request may carry."""
HAS_THREADS: Final = 3
"""The exit code of a server that cannot fork safely, because something has started a thread in it."""

_CLONE_PARENT: Final = 0x8000
_CLONE_NUMBERS: Final = {"x86_64": 56, "aarch64": 220, "riscv64": 220}
"""The numbers of the system call by which a process creates a sibling."""


class InheritedFiles(NamedTuple):
    """The file descriptors that every request carries first, in this order."""

    standard_input: int
    standard_output: int
    standard_error: int
    exit: int
    """The guard writes its process id to it, and holds it open until it ends."""
    start: int
    """Contains what multiprocessing passes to a process."""
    parent: int
    """Readable when the worker has ended."""
    tracker: int
    """The worker's resource tracker."""


class ReceivedFile:
    """One of the further files of a request; `index` is its position among them.

    It is created in the worker, and pickled. In the process, `files` holds the file descriptors.
    """

    files: Sequence[int] = ()

    def __init__(self, index: int) -> None:
        self._index = index

    def detach(self) -> int:
        """Return the file descriptor; called by multiprocessing."""
        return self.files[self._index]


def is_available() -> bool:
    """Return whether this system can run the server. Elsewhere, a fork may be unsafe, or has no siblings (macOS)."""
    if sys.platform != "linux" or not hasattr(os, "memfd_create"):
        return False
    return sys.maxsize >= 1 << 32 and os.uname().machine in _CLONE_NUMBERS


def main(requests_fd: int, worker: int, directory: str, modules: Iterable[str]) -> int:
    """Fork processes until the worker ends. Return only in a process of a handler, when it ends, with its exit code.

    Args:
        requests_fd: The connection to the worker. Each message is a request, and carries the files of a process.
        worker: The process id of the worker.
        directory: The working directory of processes.
        modules: The modules to import first.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    supervisor.end_with_parent(worker)
    for name in modules:
        import_module(name)
    if len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208 names are enough
        os._exit(HAS_THREADS)
    os.chdir("/")
    gc.collect()
    gc.freeze()  # a garbage collection would copy the memory that processes share
    files, further_files = _serve(requests_fd)
    try:
        os.write(files.exit, str(os.getpid()).encode())
        supervisor.guard(worker, files.exit)
    except BaseException:  # noqa: BLE001 no process was forked
        os._exit(1)
    ReceivedFile.files = further_files
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return _run(files, directory)


def _serve(requests_fd: int) -> tuple[InheritedFiles, Sequence[int]]:
    """Create a sibling for each request. Return only in a sibling, with the files of its request."""
    with socket.socket(fileno=requests_fd) as requests:
        while True:
            message, files, _, _ = socket.recv_fds(requests, 1, MAX_FILES)
            if not message:
                os._exit(0)
            if _fork_sibling() == 0:
                always = len(InheritedFiles._fields)
                return InheritedFiles(*files[:always]), files[always:]
            for file in files:
                os.close(file)


def _fork_sibling() -> int:
    """Create a copy of this process with the same parent. Return 0 in the copy; -1 if the system allows no more.

    The C library does not know that the copy is another process. This matters only for what the copy does with threads;
    processes that it forks are as usual.
    """
    # Not CDLL, which would release the interpreter's lock meanwhile.
    system_call = ctypes.PyDLL(None).syscall
    system_call.restype = ctypes.c_long
    arguments = (_CLONE_NUMBERS[os.uname().machine], _CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0)
    return int(system_call(*map(ctypes.c_long, arguments)))


def _run(files: InheritedFiles, directory: str) -> int:
    """Run what multiprocessing passes to this process, as in an interpreter that it has started."""
    for number, file in enumerate(files[:3]):
        os.dup2(file, number)
        os.close(file)
    cast("TextIOWrapper", sys.stdout).reconfigure(line_buffering=os.isatty(1))
    if os.path.isdir(directory):  # noqa: PTH112 - otherwise, it stays in the root directory
        os.chdir(directory)
    importlib.invalidate_caches()  # modules may have been added since the server looked
    vars(vars(resource_tracker)["_resource_tracker"])["_fd"] = files.tracker
    run_process: Callable[[int, int], int] = vars(spawn)["_main"]
    return run_process(files.start, files.parent)
