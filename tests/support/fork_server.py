"""A server that forks Python programs, run by `forked_programs`.

Usage: python -P fork_server.py DESCRIPTOR [MODULE ...], with the file descriptor of a socket that listens.

The server imports the modules, then accepts connections until its standard input is closed. Each connection brings a
request, with the file descriptors of the program's standard streams, and gets the process id and, when the program has
ended, its exit code; `fork_client` is the other end. The server forks a process that waits for that.
"""

import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Final

from reference_manager.embedded.process import end_with_parent

_LONGEST_REQUEST: Final = 1 << 18
"""Bytes."""


def _serve(requests: socket.socket) -> str:
    """Serve requests. Return only in a forked program, with the name of its module."""
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
    status.send(str(child).encode())
    _, ended = os.waitpid(child, 0)
    status.send(str(os.waitstatus_to_exitcode(ended)).encode())
    os._exit(0)


def _prepare(module: str, arguments: Sequence[str], folder: str, environment: Mapping[str, str]) -> str:
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
