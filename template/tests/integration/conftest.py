"""A real manager for the tests, with a database of its own."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

import pytest


@pytest.fixture(scope="session")
def manager_url() -> Iterator[str]:
    """Start a manager on a free port, give its address, and stop it when the tests are over."""
    command = str(Path(sys.executable).with_name("jobnik-manager"))
    with TemporaryDirectory() as folder:
        # PostgreSQL does not run as root: where the tests do, another user runs it and must get in here.
        Path(folder).chmod(0o755)
        serve = [command, "serve", "--data-dir", folder, "--port", "0"]
        with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as manager:  # noqa: S603 - our own command
            try:
                yield _wait_until_ready(manager)
            finally:
                manager.terminate()


def _wait_until_ready(manager: subprocess.Popen[str]) -> str:
    assert manager.stdout is not None
    for line in manager.stdout:
        event = json.loads(line)
        if event["event"] == "manager is ready":
            # What it logs later is read on, because a full pipe would stop it.
            Thread(target=manager.stdout.read, daemon=True).start()
            return event["url"]
    raise RuntimeError("the manager ended before it was ready; its message is above")
