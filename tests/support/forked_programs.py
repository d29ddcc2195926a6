"""Starts Python programs by forking a process that has imported their code: imports take most of the time of a start.

A forked program is a process like any other: it has its own arguments, environment, folder, output and signals, it runs
the whole module, and it ends with the interpreter.
"""

import atexit
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from itertools import count
from pathlib import Path

from tests.support import fork_server
from tests.support.fork_client import receive_number, request
from tools.manager import Process
from tools.snapshot import ROOT

_numbers = count(1)


class ForkServer:
    """A process that forks programs, until this process ends.

    Args:
        modules: The modules that it imports first.
        python: The interpreter, whose environment must have the manager; None: that of this process.
    """

    def __init__(self, *modules: str, python: Path | None = None) -> None:
        self.address = f"jobnik-tests-{os.getpid()}-{next(_numbers)}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as requests:
            requests.bind(f"\0{self.address}")
            requests.listen()
            descriptor = requests.fileno()
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                # With -P and not as a module: its folder must not come first on the path of the programs.
                [python or sys.executable, "-P", fork_server.__file__, str(descriptor), *modules],
                stdin=subprocess.PIPE,
                pass_fds=[descriptor],
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )
        atexit.register(self._process.communicate)


class ForkedProcess:
    """A forked program, with the methods of `subprocess.Popen`.

    Args:
        server: What forks it.
        module: The name of its module.
        arguments: Its arguments.
        environment: All its environment variables.
        output: The file descriptor that it writes to.
        errors: The same for its standard error, if that is another one.
        folder: Its current folder.
    """

    def __init__(  # noqa: PLR0913 - all that makes up a process
        self,
        server: ForkServer,
        module: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        output: int,
        *,
        errors: int | None = None,
        folder: Path = ROOT,
    ) -> None:
        self.returncode: int | None = None
        self._module = module
        status = request(
            server.address,
            module,
            arguments,
            folder=str(folder),
            environment=environment,
            descriptors=(0, output, output if errors is None else errors),
        )
        self.pid = receive_number(status)
        self._reader = threading.Thread(target=self._read, args=(status,), daemon=True)
        self._reader.start()

    def poll(self) -> int | None:
        """Return the exit code; None while the program runs."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until the program has ended, and return the exit code: if a signal ended it, its negative number."""
        self._reader.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self._module, timeout or 0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the program has ended."""
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


def start_manager(arguments: Sequence[str], environment: Mapping[str, str], output: int) -> Process:
    """Start a manager, as `ManagerProcess.start` does."""
    return ForkedProcess(_manager_server(), "reference_manager", arguments, environment, output)


def start_worker(  # noqa: PLR0913 - all that makes up a process
    module: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    output: int,
    *,
    errors: int | None = None,
    folder: Path = ROOT,
    forked: bool = True,
) -> Process:
    """Start a program of this repository that is a worker of the SDK.

    Args:
        module: The name of its module.
        arguments: Its arguments.
        environment: All its environment variables.
        output: The file descriptor that it writes to.
        errors: The same for its standard error, if that is another one.
        folder: Its current folder.
        forked: Whether it may be forked. A fork has the standard streams that Python opened for another output.
    """
    if forked and sys.platform == "linux":
        return ForkedProcess(_worker_server(), module, arguments, environment, output, errors=errors, folder=folder)
    return subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env=environment,
        stdout=output,
        stderr=output if errors is None else errors,
    )


@cache
def _manager_server() -> ForkServer:
    # A manager with tracing imports the exporter when it starts.
    return ForkServer("reference_manager.cli", "opentelemetry.exporter.otlp.proto.http.trace_exporter")


@cache
def _worker_server() -> ForkServer:
    return ForkServer("jobnik_sdk.service.process", "jobnik_sdk.worker.worker")
