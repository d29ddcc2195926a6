"""`make dev` of a rendered project: one command, and everything runs, follows what is edited, and ends together."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self
from urllib.request import urlopen

import psutil
import pytest
from PIL import Image

from tests.template.environments import INSTALLATION, of_a_newcomer
from tests.template.versions import edit
from tools.ports import two_free_ports

pytestmark = pytest.mark.timeout(INSTALLATION)

HANDLERS = "src/thumbnail_worker/handlers.py"


class Dev:
    """`make dev` in a project, as a shell starts it: in a process group of its own."""

    def __init__(self, project: Path, data: Path, port: int) -> None:
        self.said: list[str] = []
        self._make = subprocess.Popen(
            ["make", "dev", f"PORT={port}"],
            cwd=project,
            env=of_a_newcomer() | {"JOBNIK_MANAGER_DATA_DIR": str(data)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End what a failed test has left."""
        if self._make.poll() is None:
            self.interrupt()
            self.interrupt()
            self._make.communicate()

    def until(self, *texts: str) -> None:
        """Read on until each of these texts has been in a line, one after the other."""
        assert self._make.stdout is not None
        for text in texts:
            line = ""
            while text not in line:
                line = self._make.stdout.readline()
                assert line, f"It ended before it said {text!r}:\n{''.join(self.said)}"
                self.said.append(line)

    def family(self) -> list[psutil.Process]:
        """List every process that runs because of it."""
        return psutil.Process(self._make.pid).children(recursive=True)

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        os.killpg(self._make.pid, signal.SIGINT)

    def ended(self) -> int:
        """Wait until it has ended, and return its exit code."""
        self.said.append(self._make.communicate()[0])
        return self._make.returncode


@pytest.fixture(scope="module")
def data() -> Iterator[Path]:
    """Give a folder for the manager's data that PostgreSQL can reach, as it cannot what lies below pytest's own."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        yield Path(folder) / "data"


@pytest.fixture
def project(installed: Path, tmp_path: Path) -> Path:
    """Give a project to edit, with the versions that are installed already."""
    return shutil.copytree(installed, tmp_path / "project", ignore=shutil.ignore_patterns(".venv", ".*_cache"))


@pytest.fixture
def start(project: Path, data: Path) -> Iterator[Callable[[int], Dev]]:
    """Give a function that runs `make dev` on a port and the next, until the test ends at the latest."""
    with ExitStack() as running:
        yield lambda port: running.enter_context(Dev(project, data, port))


def hang(project: Path) -> None:
    """Let its handler never end."""
    edit(
        project / HANDLERS,
        "    width, height = await asyncio.to_thread(_write_thumbnail, task, quality)\n",
        """    context.logger.info("it hangs")
    await asyncio.Event().wait()
    width = height = quality
""",
    )


def gone(family: list[psutil.Process]) -> bool:
    """Tell whether all of these processes end."""
    return not psutil.wait_procs(family, timeout=60)[1]


def get(url: str) -> int:
    """Ask for a page, and return the status of the answer."""
    with urlopen(url) as answer:  # noqa: S310 - our own
        return answer.status


def test_one_command_runs_all_and_follows_what_is_edited(start: Callable[[int], Dev], project: Path) -> None:
    """The seed is completed, its links lead somewhere, edits and mistakes are followed, and Ctrl-C leaves nothing."""
    port = two_free_ports()
    dev = start(port)
    dev.until("| The job", "| It is COMPLETED")

    manager, worker = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}"
    for link in (f"{manager}/docs", f"{worker}/readyz", f"{worker}/metrics"):
        assert any(f" {link}\n" in line for line in dev.said)
        assert get(link) == 200
    for thumbnail in ("dawn", "noon", "dusk"):
        with Image.open(project / ".dev" / "thumbnails" / f"{thumbnail}.jpg") as picture:
            assert picture.size == (256, 160)

    edit(project / HANDLERS, '"thumbnail made"', '"a thumbnail was made"')
    dev.until(f"{HANDLERS} changed", "worker stopped", "worker started")
    edit(project / "seed.py", "The job", "Another job")
    dev.until("| Another job", "a thumbnail was made", "| It is COMPLETED")
    edit(project / HANDLERS, "async def make_thumbnail(", "async def make_thumbnail)(")
    dev.until("SyntaxError", "The worker has ended (exit code 1)")
    edit(project / HANDLERS, "async def make_thumbnail)(", "async def make_thumbnail(")
    dev.until("worker started")
    (project / ".env").write_text("THUMBNAIL_QUALITY=100\n")
    dev.until("THUMBNAIL_QUALITY: ", "The worker has ended (exit code 2)")
    (project / ".env").unlink()
    dev.until("worker started")

    family = dev.family()
    dev.interrupt()
    dev.until("Stopping", "worker stopped", "manager has stopped", "Stopped: nothing is left running.")
    # make itself dies of Ctrl-C, as the shell that called it wants to know.
    assert dev.ended() in {0, -signal.SIGINT}
    assert gone(family)


def test_the_second_interrupt_is_quicker(start: Callable[[int], Dev], project: Path) -> None:
    """A task that would hold up the end for long is left behind, and so is nothing else."""
    hang(project)
    dev = start(two_free_ports())
    dev.until("it hangs")
    family = dev.family()

    dev.interrupt()
    dev.until("worker draining")
    dev.interrupt()
    dev.until("Stopped: nothing is left running.")
    dev.ended()
    assert gone(family)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends the children of a killed process")
@pytest.mark.parametrize("killed", ["uv", "python"])
def test_a_kill_leaves_nothing_running(start: Callable[[int], Dev], killed: str) -> None:
    """Whichever process between make and the programs is killed, all of them end."""
    dev = start(two_free_ports())
    dev.until("| It is COMPLETED")
    family = dev.family()

    next(process for process in family if process.name().startswith(killed)).kill()

    dev.ended()
    assert gone(family)


@pytest.mark.parametrize("beyond", [0, 1])
def test_a_taken_port_is_told(start: Callable[[int], Dev], beyond: int) -> None:
    """It names the port, what it is for and what to type instead, and starts nothing."""
    port = two_free_ports()
    with socket.create_server(("127.0.0.1", port + beyond)):
        dev = start(port)
        assert dev.ended() == 2

    assert f"Port {port + beyond}, for " in dev.said[-1]
    assert f"make dev PORT={port + 10}" in dev.said[-1]
    assert "manager |" not in dev.said[-1]
