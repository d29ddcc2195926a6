"""Starts managers by forking a process that has imported their code: imports are most of the CPU time of a start.

A forked manager is a process like any other: it has its own arguments, environment, output and signals, and it runs the
whole command line and ends with the interpreter.

The server reads requests from a socket. Each comes with two file descriptors: for the output of the manager, and for a
socket that gets its process id and, when it has ended, its exit code. The server forks a process that waits for that.
"""

import atexit
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Final

from reference_manager.embedded.process import end_with_parent

_LONGEST_REQUEST: Final = 1 << 18
"""Bytes."""
_NUMBER: Final = struct.Struct("!q")


class ForkedManager:
    """A manager, with the methods of `subprocess.Popen`.

    Args:
        arguments: The arguments of `jobnik-manager`.
        environment: All its environment variables.
        output: The file descriptor that it writes to.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], output: int) -> None:
        self.returncode: int | None = None
        status, theirs = socket.socketpair()
        request = json.dumps([list(arguments), dict(environment)]).encode()
        with theirs:
            socket.send_fds(_server(), [request], [output, theirs.fileno()])
        self.pid = _receive(status)
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
            self.returncode = _receive(status)


@cache
def _server() -> socket.socket:
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    # Not as a module: this folder would come first on the path of the managers.
    command = [sys.executable, "-P", __file__, str(theirs.fileno())]
    with theirs:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])  # noqa: S603 - this file

    def stop() -> None:
        ours.close()
        server.wait()

    atexit.register(stop)
    return ours


def _receive(status: socket.socket) -> int:
    return _NUMBER.unpack(status.recv(_NUMBER.size, socket.MSG_WAITALL))[0]


def _serve(requests: socket.socket) -> list[str]:
    """Serve requests. Return only in a manager, with its arguments."""
    # Ctrl-C in a terminal reaches all these processes, but must end only the managers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    request_signal = end_with_parent(signal.SIGTERM)
    while True:
        request, descriptors, _, _ = socket.recv_fds(requests, _LONGEST_REQUEST, 2)
        with suppress(ChildProcessError):  # there is none
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not request:
            os._exit(0)
        output, status = descriptors
        if os.fork() == 0:
            if request_signal:
                request_signal()
            requests.close()
            arguments, environment = json.loads(request)
            _start(output, socket.socket(fileno=status))
            os.environ.clear()
            os.environ.update(environment)
            return arguments
        os.close(output)
        os.close(status)


def _start(output: int, status: socket.socket) -> None:
    """Fork again. Return only in the child, and report the end of the child to `status`."""
    request_signal = end_with_parent(signal.SIGTERM)
    child = os.fork()
    if child == 0:
        if request_signal:
            request_signal()
        status.close()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for standard in (1, 2):
            os.dup2(output, standard)
        os.close(output)
        return
    os.close(output)
    status.send(_NUMBER.pack(child))
    _, ended = os.waitpid(child, 0)
    status.send(_NUMBER.pack(os.waitstatus_to_exitcode(ended)))
    os._exit(0)


if __name__ == "__main__":
    import gc

    from reference_manager.cli import main

    # A collection would copy all memory that the managers share with the server.
    gc.freeze()
    sys.argv = ["jobnik-manager", *_serve(socket.socket(fileno=int(sys.argv[1])))]
    sys.exit(main(sys.argv[1:]))
