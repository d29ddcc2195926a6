"""Starts Python programs by forking a process that has imported their code: imports take most of the time of a start.

A forked program is a process like any other: it has its own arguments, environment, folder, output and signals, it runs
the whole module, and it ends with the interpreter.

A server accepts connections at an address. Each brings a request, with the file descriptors of the program's standard
streams, and gets the process id and, when the program has ended, its exit code; `fork_client` is the other end. The
server forks a process that waits for that.
"""

import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from itertools import count
from typing import Final

from reference_manager.embedded.process import end_with_parent

from tests.support.fork_client import receive_number, request, send_number
from tools.snapshot import ROOT

_LONGEST_REQUEST: Final = 1 << 18
"""Bytes."""
_numbers = count(1)


class ForkServer:
    """A process that forks programs, until this process ends.

    Args:
        modules: The modules that it imports first.
    """

    def __init__(self, *modules: str) -> None:
        self.address = f"jobnik-tests-{os.getpid()}-{next(_numbers)}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as requests:
            requests.bind(f"\0{self.address}")
            requests.listen()
            descriptor = requests.fileno()
            self._process = subprocess.Popen(  # noqa: S603 - this file
                # With -P and not as a module: this folder must not come first on the path of the programs.
                [sys.executable, "-P", __file__, str(descriptor), *modules],
                stdin=subprocess.PIPE,
                pass_fds=[descriptor],
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )
        atexit.register(self._process.communicate)


class ForkedManager:
    """A manager, with the methods of `subprocess.Popen`.

    Args:
        arguments: The arguments of `jobnik-manager`.
        environment: All its environment variables.
        output: The file descriptor that it writes to.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], output: int) -> None:
        self.returncode: int | None = None
        address = _manager_server().address
        status = request(address, "reference_manager", arguments, environment, (0, output, output))
        self.pid = receive_number(status)
        self._reader = threading.Thread(target=self._read, args=(status,), daemon=True)
        self._reader.start()

    def poll(self) -> int | None:
        """Return the exit code; None while the manager runs."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until the manager has ended, and return the exit code: if a signal ended it, its negative number."""
        self._reader.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("jobnik-manager", timeout or 0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the manager has ended."""
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _read(self, status: socket.socket) -> None:
        with status:
            self.returncode = receive_number(status)


@cache
def _manager_server() -> ForkServer:
    return ForkServer("reference_manager.cli")


def _serve(requests: socket.socket) -> str:
    """Serve requests until standard input is closed. Return only in a forked program, with the name of its module."""
    # Ctrl-C in a terminal reaches all these processes, but must end only the programs.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    request_signal = end_with_parent(signal.SIGTERM)
    while True:
        ready, _, _ = select.select([requests, 0], [], [])
        with suppress(ChildProcessError):  # there is none
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if 0 in ready:
            os._exit(0)
        status, _ = requests.accept()
        if os.fork() == 0:
            if request_signal:
                request_signal()
            requests.close()
            return _start(status)
        status.close()


def _start(status: socket.socket) -> str:
    """Fork again. Return only in the child, and report the end of the child to `status`."""
    message, descriptors, _, _ = socket.recv_fds(status, _LONGEST_REQUEST, 3)
    request_signal = end_with_parent(signal.SIGTERM)
    child = os.fork()
    if child == 0:
        if request_signal:
            request_signal()
        status.close()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for standard, descriptor in enumerate(descriptors):
            os.dup2(descriptor, standard)
            os.close(descriptor)
        return _prepare(*json.loads(message))
    for descriptor in descriptors:
        os.close(descriptor)
    send_number(status, child)
    _, ended = os.waitpid(child, 0)
    send_number(status, os.waitstatus_to_exitcode(ended))
    os._exit(0)


def _prepare(module: str, arguments: Sequence[str], environment: Mapping[str, str], folder: str) -> str:
    """Do what the interpreter does before it runs a module, and return the module's name."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[:0] = [folder, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv[1:] = arguments
    return module


if __name__ == "__main__":
    for name in sys.argv[2:]:
        import_module(name)
    # A collection would copy all memory that the programs share with the server.
    gc.freeze()
    runpy.run_module(_serve(socket.socket(fileno=int(sys.argv[1]))), run_name="__main__", alter_sys=True)
