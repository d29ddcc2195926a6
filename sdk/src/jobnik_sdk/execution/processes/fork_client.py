"""The worker's side of its fork server."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from multiprocessing import sharedctypes, spawn, util
from types import FunctionType
from typing import Final
from weakref import WeakKeyDictionary

from jobnik_sdk.execution.processes import child, exits, fork_server
from jobnik_sdk.execution.processes.exits import UNKNOWN_EXIT_CODE, describe_exit
from jobnik_sdk.execution.processes.start_conditions import StartConditions, memory_file
from jobnik_sdk.observability.logging import RuntimeLogger

_PACKAGE: Final = "jobnik_sdk."
_PROGRAM: Final = (
    "import json, sys; sys.path, *arguments = json.load(sys.stdin); "
    f"from {fork_server.__name__} import main; sys.exit(main(*arguments))"
)
_KILL_TIMEOUT: Final = timedelta(seconds=1)
_UNUSABLE_ADVICE: Final = (
    "each process of a handler imports the SDK itself, which takes longer; "
    "look for code that every Python program runs at its start, such as a sitecustomize module"
)
_log: Final = RuntimeLogger(__name__)


class ForkServer:
    """A process that forks the processes of handlers. It starts with the first of them, and again after it has died.

    The runners of an event loop share it if their processes start under the same conditions. It ends when the last of
    them releases it, or with the thread of the event loop.
    """

    def __init__(self, start_conditions: StartConditions) -> None:
        self.start_conditions = start_conditions
        self._users = 0
        self._is_usable = fork_server.is_available() and not getattr(sys, "frozen", False)
        self._running: _Server | None = None

    @classmethod
    def shared(cls, start_conditions: StartConditions) -> "ForkServer":
        """Return the one with these conditions on this event loop."""
        servers = _servers.setdefault(asyncio.get_running_loop(), [])
        server = next((server for server in servers if server.start_conditions == start_conditions), None)
        if server is None:
            server = cls(start_conditions)
            servers.append(server)
        server._users += 1
        return server

    async def release(self) -> None:
        """Kill the server unless another runner uses it."""
        self._users -= 1
        if self._users:
            return
        _servers[asyncio.get_running_loop()].remove(self)
        if self._running is not None:
            exited = self._running.exited
            self.kill()
            with suppress(TimeoutError):
                async with asyncio.timeout(_KILL_TIMEOUT.total_seconds()):
                    await exited.wait()

    def fork(self, files: Sequence[int]) -> bool:
        """Ask for a process with these files; see `fork_server.InheritedFiles`. Return False if that is not possible.

        If the server cannot do it, it closes the files.

        Raises:
            OSError: the server cannot be started.
        """
        if not self._is_usable:
            return False
        if self._running is None:
            self._running = _Server(self.start_conditions)
            asyncio.get_running_loop().add_reader(self._running.pidfd, self._on_exit, self._running)
        try:
            socket.send_fds(self._running.requests, [b"\0"], files)
        except OSError:  # it has just died, or has too many requests already
            return False
        return True

    def kill(self) -> None:
        """Kill the server, even if it is stopped. The next process starts another one."""
        if self._running is not None:
            self._running.killed = True
            with suppress(OSError):  # it has just died
                signal.pidfd_send_signal(self._running.pidfd, signal.SIGKILL)

    def _on_exit(self, server: "_Server") -> None:
        self._running = None
        asyncio.get_running_loop().remove_reader(server.pidfd)
        code = server.close()
        if code is not None and 0 < code < UNKNOWN_EXIT_CODE:  # it would exit again
            self._is_usable = False
            reason = "it has threads" if code == fork_server.HAS_THREADS else describe_exit(code)
            _log.info("fork server unusable", reason=reason, advice=_UNUSABLE_ADVICE)
        elif not server.killed:
            _log.warning("fork server died", exit_status=describe_exit(code))


_servers: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, list[ForkServer]]] = WeakKeyDictionary()


class _Server:
    """A running server; `requests` is the connection to it."""

    def __init__(self, start_conditions: StartConditions) -> None:
        self.killed = False
        self.exited = asyncio.Event()
        self.requests, server_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.requests.settimeout(0)
        server_end.settimeout(None)  # the application may have set a default
        with server_end:
            fd, paths = server_end.fileno(), start_conditions.preparation["sys_path"]
            arguments = [paths, fd, os.getpid(), start_conditions.directory, _modules(start_conditions)]
            options = vars(util)["_args_from_interpreter_flags"]()
            stdin = memory_file(json.dumps(arguments, default=str).encode())
            try:
                self._pid = start_conditions.start(
                    [spawn.get_executable(), *options, "-c", _PROGRAM],
                    [fd],
                    start_new_session=True,
                    stdin=stdin,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            finally:
                os.close(stdin)
        try:
            self.pidfd = os.pidfd_open(self._pid)
        except OSError:  # too many files are open
            self.requests.close()
            os.kill(self._pid, signal.SIGKILL)
            exits.poll(self._pid, 0)
            raise

    def close(self) -> int | None:
        """Release what belongs to a server that has exited, and return its exit code."""
        os.close(self.pidfd)
        self.requests.close()
        self.exited.set()
        code = exits.poll(self._pid)
        # A guard leaves the process group of the server once it has told its process id; it may have died before.
        with suppress(ChildProcessError):
            while os.waitpid(-self._pid, os.WNOHANG)[0]:
                pass
        return code


def _modules(start_conditions: StartConditions) -> Sequence[str]:
    """Return the modules of the SDK that every process needs.

    If every process runs the main module of the worker, these include the modules that the main module has imported.
    """
    needed = {child.__name__, sharedctypes.__name__}
    main = start_conditions.preparation.get("init_main_from_name", "")
    if main != "__main__" and not main.endswith(".__main__"):
        needed.update(map(_module, tuple(vars(sys.modules["__main__"]).values())))
    return sorted(name for name in needed if name.startswith((_PACKAGE, "multiprocessing.")))


def _module(member: object) -> str:
    """Return the name of the module of a class or a function; empty if there is none.

    It asks other members nothing: those that load the settings of a framework when they are used may raise anything.
    """
    if not issubclass(type(member), type | FunctionType):  # `isinstance` would read `__class__` of the member
        return ""
    module = getattr(member, "__module__", None)
    return module if isinstance(module, str) else ""
