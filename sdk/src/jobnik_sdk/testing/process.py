"""A real manager in a separate process, with an embedded PostgreSQL."""

import json
import os
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import IO, Final

from jobnik_sdk.errors import ConfigurationError

COMMAND: Final = "jobnik-manager"
_STOP_TIMEOUT: Final = 30.0
"""Seconds; then the process is killed."""


@contextmanager
def running_manager(*arguments: str) -> Generator[str]:
    """Run a manager on a free port of 127.0.0.1 for the length of a block, and yield its address.

    Its data is in a temporary folder.

    Args:
        arguments: Further command-line arguments, such as `--part-a-only`.

    Raises:
        ConfigurationError: no manager is installed.
        RuntimeError: the manager ended before it was ready; the message quotes its output.
    """
    with TemporaryDirectory(prefix="jobnik-") as folder:
        # If the tests run as root, PostgreSQL runs as another user, who needs access to the folder.
        Path(folder).chmod(0o755)
        serve = [manager_command(), "serve", "--data-dir", str(Path(folder, "data")), "--port", "0", *arguments]
        # The developer's settings are for another manager, perhaps with a database that matters.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("JOBNIK_MANAGER_")}
        manager = subprocess.Popen(  # noqa: S603 our own command
            serve, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert manager.stdout is not None  # noqa: S101 a pipe was requested
        with manager.stdout as output:
            try:
                url = _wait_until_ready(output)
                # Further output is read and dropped: a full pipe would block the manager.
                reader = Thread(target=deque, args=(output, 0), daemon=True)
                reader.start()
                try:
                    yield url
                finally:
                    _stop(manager)
                    reader.join()
            finally:
                _stop(manager)


def manager_command() -> str:
    """Return the path of the manager's program: that of this environment, otherwise the one on PATH.

    Raises:
        ConfigurationError: no manager is installed.
    """
    installed = Path(sys.executable).with_name(COMMAND)
    found = str(installed) if installed.exists() else shutil.which(COMMAND)
    if found is None:
        raise ConfigurationError(
            f"{COMMAND} is neither next to {sys.executable} nor on PATH: "
            "install the package jobnik-reference-manager into that environment."
        )
    return found


def _wait_until_ready(output: IO[str]) -> str:
    """Wait until the manager is ready, and return its address."""
    lines = deque[str](maxlen=100)
    for line in output:
        lines.append(line)
        if '"manager is ready"' in line:
            url: str = json.loads(line)["url"]
            return url
    raise RuntimeError(f"The manager ended before it was ready:\n{''.join(lines)}")


def _stop(manager: subprocess.Popen[str]) -> None:
    manager.terminate()
    try:
        manager.wait(_STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        manager.kill()
        manager.wait()
