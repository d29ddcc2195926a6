"""A real manager as a process of its own, with a PostgreSQL that it brings along."""

import json
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
STOP_LIMIT: Final = 30.0
"""Seconds."""


@contextmanager
def running_manager(*arguments: str) -> Generator[str]:
    """Start a manager on a free port, with its data in a folder of its own; give its address, and stop it in the end.

    `arguments` are more of them, such as `--part-a-only`.

    Raises:
        ConfigurationError: no manager is installed.
        RuntimeError: it ended before it was ready; the message quotes what it said.
    """
    with TemporaryDirectory(prefix="jobnik-") as folder:
        # PostgreSQL does not run as root: where the tests do, another user runs it and must get in here.
        Path(folder).chmod(0o755)
        serve = [manager_command(), "serve", "--data-dir", str(Path(folder, "data")), "--port", "0", *arguments]
        manager = subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # noqa: S603 our own command
        assert manager.stdout is not None  # noqa: S101 it was asked for
        with manager.stdout as said:
            try:
                url = _ready(said)
                # What it says later is read as well, because a full pipe would stop it.
                reader = Thread(target=deque, args=(said, 0), daemon=True)
                reader.start()
                try:
                    yield url
                finally:
                    _stop(manager)
                    reader.join()
            finally:
                _stop(manager)


def manager_command() -> str:
    """The manager's program: that of this environment, else the one on PATH.

    Raises:
        ConfigurationError: no manager is installed.
    """
    beside = Path(sys.executable).with_name(COMMAND)
    found = str(beside) if beside.exists() else shutil.which(COMMAND)
    if found is None:
        raise ConfigurationError(
            f"{COMMAND} is neither beside {sys.executable} nor on PATH: "
            "install the package jobnik-reference-manager into that environment."
        )
    return found


def _ready(said: IO[str]) -> str:
    """Where the manager listens, once it does."""
    heard = deque[str](maxlen=100)
    for line in said:
        heard.append(line)
        if '"manager is ready"' in line:
            url: str = json.loads(line)["url"]
            return url
    raise RuntimeError(f"The manager ended before it was ready:\n{''.join(heard)}")


def _stop(manager: subprocess.Popen[str]) -> None:
    manager.terminate()
    try:
        manager.wait(STOP_LIMIT)
    except subprocess.TimeoutExpired:
        manager.kill()
        manager.wait()
