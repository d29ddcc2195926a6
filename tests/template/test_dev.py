"""`make dev` of a rendered project: one command runs everything, follows edits, and stops everything."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from filecmp import cmp
from pathlib import Path
from typing import Self
from urllib.request import urlopen

import psutil
import pytest
from PIL import Image

from tests.template.environments import INSTALL_TIMEOUT, clean_environment
from tests.template.versions import edit
from tools.ports import free_port

pytestmark = pytest.mark.timeout(INSTALL_TIMEOUT)

HANDLERS = "src/thumbnail_worker/handlers.py"


class Dev:
    """`make dev` in a project, started as a shell does: in a process group of its own."""

    def __init__(self, project: Path, data: Path, port: int) -> None:
        self.output: list[str] = []
        self._make = subprocess.Popen(
            ["make", "dev", f"PORT={port}"],
            cwd=project,
            env=clean_environment() | {"JOBNIK_MANAGER_DATA_DIR": str(data)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the processes that a failed test has left running."""
        if self._make.poll() is None:
            self.interrupt()
            self.interrupt()
            self._make.communicate()
        assert self._make.stdout is not None
        self._make.stdout.close()

    def until(self, *texts: str) -> None:
        """Read the output until each of these texts was in a line, in this order."""
        assert self._make.stdout is not None
        for text in texts:
            line = ""
            while text not in line:
                line = self._make.stdout.readline()
                assert line, f"make dev ended before it printed {text!r}:\n{''.join(self.output)}"
                self.output.append(line)

    def processes(self) -> list[psutil.Process]:
        """Return all processes that it has started."""
        return psutil.Process(self._make.pid).children(recursive=True)

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        os.killpg(self._make.pid, signal.SIGINT)

    def wait(self) -> int:
        """Wait until it has ended, and return its exit code."""
        self.output.append(self._make.communicate()[0])
        return self._make.returncode


@pytest.fixture(scope="module")
def data() -> Iterator[Path]:
    """Return a folder for the manager's data that PostgreSQL has access to; it has none to the folders of pytest."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        yield Path(folder) / "data"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the project, whose environment and compiled modules all tests share."""
    return tmp_path_factory.mktemp("dev") / "project"


@pytest.fixture
def project(installed: Path, shared: Path) -> Path:
    """Return a project to edit, as it was rendered. uv installs it again only if its `pyproject.toml` is written."""
    (shared / ".env").unlink(missing_ok=True)
    shutil.rmtree(shared / ".dev", ignore_errors=True)
    ignored = shutil.ignore_patterns(".venv", ".dev", ".*_cache", "__pycache__")
    return shutil.copytree(installed, shared, ignore=ignored, copy_function=copy_if_different, dirs_exist_ok=True)


def copy_if_different(source: str, target: str) -> None:
    """Copy a file, unless the target has the same contents."""
    if not Path(target).exists() or not cmp(source, target, shallow=False):
        shutil.copy2(source, target)


@pytest.fixture
def start(project: Path, data: Path) -> Iterator[Callable[[int], Dev]]:
    """Return a function that runs `make dev` on a port and the next one. It is stopped when the test ends."""
    with ExitStack() as running:
        yield lambda port: running.enter_context(Dev(project, data, port))


def hang(project: Path) -> None:
    """Replace the handler by one that never ends."""
    edit(
        project / HANDLERS,
        "    content = _read(task.source, http)\n",
        """    context.logger.info("it hangs")
    context.cancellation.wait()
    content = b""
""",
    )


def all_end(processes: list[psutil.Process]) -> bool:
    """Return whether all of these processes end within a minute."""
    return not psutil.wait_procs(processes, timeout=60)[1]


def get(url: str) -> int:
    """Request a page, and return the status of the answer."""
    with urlopen(url) as answer:  # noqa: S310 - our own
        return answer.status


def test_one_command_runs_everything_and_follows_edits(start: Callable[[int], Dev], project: Path) -> None:
    """The job of the seed completes, all links work, edits restart programs, and Ctrl-C stops everything."""
    port = free_port(2)
    dev = start(port)
    dev.until("| The job", "| It is COMPLETED")

    manager, worker = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}"
    for link in (f"{manager}/docs", f"{worker}/readyz", f"{worker}/metrics"):
        assert any(f" {link}\n" in line for line in dev.output)
        assert get(link) == 200
    for thumbnail in ("dawn", "noon", "dusk"):
        with Image.open(project / ".dev" / "thumbnails" / f"{thumbnail}.jpg") as picture:
            assert picture.size == (256, 160)

    edit(project / HANDLERS, '"thumbnail made"', '"a thumbnail was made"')
    dev.until(f"{HANDLERS} changed", "worker stopped", "worker started")
    edit(project / "seed.py", "The job", "Another job")
    dev.until("| Another job", "a thumbnail was made", "| It is COMPLETED")
    edit(project / HANDLERS, "def make_thumbnail(", "def make_thumbnail)(")
    dev.until("SyntaxError", "The worker has ended (exit code 1)")
    edit(project / HANDLERS, "def make_thumbnail)(", "def make_thumbnail(")
    dev.until("worker started")
    (project / ".env").write_text("THUMBNAIL_QUALITY=100\n")
    dev.until("THUMBNAIL_QUALITY: ", "The worker has ended (exit code 2)")
    (project / ".env").unlink()
    dev.until("worker started")

    processes = dev.processes()
    dev.interrupt()
    dev.until("Stopping", "worker stopped", "manager has stopped", "Stopped: nothing is left running.")
    # make itself ends by the signal, so that the shell that called it knows.
    assert dev.wait() in {0, -signal.SIGINT}
    assert all_end(processes)


def test_second_interrupt_stops_at_once(start: Callable[[int], Dev], project: Path) -> None:
    """A handler that never ends does not delay the end, and no process is left running."""
    hang(project)
    dev = start(free_port(2))
    dev.until("it hangs")
    processes = dev.processes()

    dev.interrupt()
    dev.until("worker draining")
    dev.interrupt()
    dev.until("Stopped: nothing is left running.")
    dev.wait()
    assert all_end(processes)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends the children of a killed process")
@pytest.mark.parametrize("killed", ["uv", "python"])
def test_a_kill_leaves_nothing_running(start: Callable[[int], Dev], killed: str) -> None:
    """If a process between make and the programs is killed, all programs end."""
    dev = start(free_port(2))
    dev.until("| It is COMPLETED")
    processes = dev.processes()

    next(process for process in processes if process.name().startswith(killed)).kill()

    dev.wait()
    assert all_end(processes)


@pytest.mark.parametrize("beyond", [0, 1])
def test_port_in_use_is_an_error(start: Callable[[int], Dev], beyond: int) -> None:
    """The message names the port, what it is for, and a command with other ports; nothing is started."""
    port = free_port(2)
    with socket.create_server(("127.0.0.1", port + beyond)):
        dev = start(port)
        assert dev.wait() == 2

    assert f"Port {port + beyond} for the " in dev.output[-1]
    assert f"make dev PORT={port + 10}" in dev.output[-1]
    assert "manager |" not in dev.output[-1]
