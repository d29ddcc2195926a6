"""A worker from nothing: how long ``copier copy`` takes, and how long it is from there to the first COMPLETED task.

Run by ``make bench``. As a newcomer does it who has done it before: by commands, each time into a new folder, with uv's
cache warm. Noise only slows, so the best counts, and the spread says how noisy it was.
"""

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tools.data_folder import temporary_data_folder
from tools.ports import two_free_ports
from tools.snapshot import take_snapshot

COPIES, STARTS = 10, 5
COMPLETED = "It is COMPLETED"
"""The last line that the project's first job prints."""

console = Console()


def copy(template: Path, project: Path) -> float:
    """Seconds of ``copier copy`` with every default."""
    answers = ["--defaults", "--quiet", "--data", "service_name=worker"]
    start = time.perf_counter()
    command = [Path(sys.executable).with_name("copier"), "copy", *answers, template, project]
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def complete(project: Path, data: Path) -> float:
    """Seconds of ``make dev`` in a fresh project until its first job is COMPLETED: install, manager, worker, tasks."""
    # The variables of this environment would affect the project's.
    theirs = {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "MAKE", "VIRTUAL_ENV"))}
    start = time.perf_counter()
    with subprocess.Popen(
        ["make", "dev", f"PORT={two_free_ports()}"],
        cwd=project,
        env=theirs | {"JOBNIK_MANAGER_DATA_DIR": str(data)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as dev:
        assert dev.stdout  # noqa: S101 - it was asked for
        said: list[str] = []
        for line in dev.stdout:
            said.append(line)
            if COMPLETED in line:
                elapsed = time.perf_counter() - start
                os.killpg(dev.pid, signal.SIGINT)
                dev.communicate()
                return elapsed
    raise RuntimeError(f"`make dev` ended before the job was completed:\n{''.join(said)}")


def main() -> None:
    """Measure and print."""
    copies: list[float] = []
    starts: list[float] = []
    with tempfile.TemporaryDirectory(prefix="jobnik-") as folder:
        template = Path(folder) / "template"
        take_snapshot(template)
        with console.status("copier copy"):
            copies.extend(copy(template, Path(folder) / f"copy-{number}") for number in range(COPIES))
        # The first one fills uv's cache with this commit's SDK and manager.
        for number in range(STARTS + 1):
            with console.status("to the first COMPLETED task"), temporary_data_folder() as data:
                project = Path(folder) / f"start-{number}"
                starts.append(copy(template, project) + complete(project, data))
    table = Table("what", "best", "median", "worst", title="A worker from nothing, in seconds")
    for what, seconds in (("copier copy", copies), ("copier copy to the first COMPLETED task", starts[1:])):
        table.add_row(what, *_spread(seconds))
    console.print(table)
    console.print(f"With SDK and manager still to be built from the commit: {starts[0]:.1f}")


def _spread(seconds: Sequence[float]) -> tuple[str, str, str]:
    return f"{min(seconds):.2f}", f"{statistics.median(seconds):.2f}", f"{max(seconds):.2f}"


if __name__ == "__main__":
    main()
