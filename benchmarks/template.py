"""Measure ``copier copy``, and the time from ``copier copy`` to the first COMPLETED task.

Run by ``make bench``. Each round renders into a new folder and uses uv's warm cache. The best round counts, because
noise can only slow a round down; the spread shows the noise.
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
from tools.ports import free_port
from tools.snapshot import take_snapshot

COPIES, STARTS = 10, 5
COMPLETED = "It is COMPLETED"
"""The line that the first job of a project prints at its end."""

console = Console()


def copy(template: Path, project: Path) -> float:
    """Return the seconds that ``copier copy`` takes with all defaults."""
    answers = ["--defaults", "--quiet", "--data", "service_name=worker"]
    start = time.perf_counter()
    command = [Path(sys.executable).with_name("copier"), "copy", *answers, template, project]
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def complete(project: Path, data: Path) -> float:
    """Return the seconds from ``make dev`` to the first COMPLETED job, including installation."""
    # These variables of this environment would affect the project's.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("UV_", "MAKE", "VIRTUAL_ENV"))
    }
    start = time.perf_counter()
    with subprocess.Popen(
        ["make", "dev", f"PORT={free_port(2)}"],
        cwd=project,
        env=environment | {"JOBNIK_MANAGER_DATA_DIR": str(data)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as dev:
        assert dev.stdout  # noqa: S101 - requested above
        output: list[str] = []
        for line in dev.stdout:
            output.append(line)
            if COMPLETED in line:
                elapsed = time.perf_counter() - start
                os.killpg(dev.pid, signal.SIGINT)
                dev.communicate()
                return elapsed
    raise RuntimeError(f"`make dev` ended before the job was completed:\n{''.join(output)}")


def main() -> None:
    """Run the measurements and print a table."""
    copies: list[float] = []
    starts: list[float] = []
    with tempfile.TemporaryDirectory(prefix="jobnik-") as folder:
        template = Path(folder) / "template"
        take_snapshot(template)
        with console.status("copier copy"):
            copies.extend(copy(template, Path(folder) / f"copy-{number}") for number in range(COPIES))
        # The first round fills uv's cache with the SDK and manager of this commit.
        for number in range(STARTS + 1):
            with console.status("copier copy to the first COMPLETED task"), temporary_data_folder() as data:
                project = Path(folder) / f"start-{number}"
                starts.append(copy(template, project) + complete(project, data))
    table = Table("measurement", "best", "median", "worst", title="A new worker, in seconds")
    for measurement, seconds in (("copier copy", copies), ("copier copy to the first COMPLETED task", starts[1:])):
        table.add_row(measurement, *_spread(seconds))
    console.print(table)
    console.print(f"First run, which also builds the SDK and the manager: {starts[0]:.1f} s")


def _spread(seconds: Sequence[float]) -> tuple[str, str, str]:
    return f"{min(seconds):.2f}", f"{statistics.median(seconds):.2f}", f"{max(seconds):.2f}"


if __name__ == "__main__":
    main()
