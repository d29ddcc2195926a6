"""The output of the demo."""

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table

from tools.demo.folders import Folders
from tools.demo.gallery import AnyStage, FailedTask, Gallery


class Screen:
    """Prints each step, a progress bar for each stage, and the result."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._start = time.monotonic()

    def headline(self, text: str) -> None:
        """Print the first line."""
        self._console.print(f"\n[bold]{escape(text)}[/]\n")

    @contextmanager
    def step(self, doing: str, done: str) -> Generator[None]:
        """Print `doing` while a step runs, then `done` and the time that the step took."""
        start = time.monotonic()
        with self._console.status(escape(doing)):
            yield
        self._console.print(f"[green]✓[/] {escape(done)} [dim]({time.monotonic() - start:.1f} s)[/]")

    @contextmanager
    def stage_bars(self) -> Generator["StageBars"]:
        """Show a progress bar for each stage."""
        columns = (
            TextColumn("  {task.description:<14}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("[yellow]{task.fields[note]}"),
        )
        with Progress(*columns, console=self._console) as progress:
            yield StageBars(progress)

    def success(self, gallery: Gallery, folders: Folders) -> None:
        """Print the throughput of each stage and the paths of the results."""
        table = Table(title="Job completed", title_style="bold green", title_justify="left")
        table.add_column("Stage")
        for name in ("Tasks", "Time", "Tasks/s"):
            table.add_column(name, justify="right")
        for row in _rows(gallery.stages):
            table.add_row(*row)
        self._console.print(Padding(table, (1, 0)))
        self._console.print(f"Contact sheet  {escape(str(folders.contact_sheet))}", soft_wrap=True)
        self._console.print(f"Thumbnails     {escape(str(folders.thumbnails))}", soft_wrap=True)
        self._console.print(f"Worker project {escape(str(folders.worker))}", soft_wrap=True)
        self._console.print(f"[dim]Total time     {time.monotonic() - self._start:.1f} s[/]\n")

    def failed_job(self, failures: Sequence[tuple[FailedTask, str]], log: Path) -> None:
        """Print the files that made the job fail, with the reasons."""
        self._console.print("\n[bold red]The job failed.[/]")
        for task, reason in failures:
            self._console.print(f"\n[red]✗[/] [bold]{escape(str(task.file))}[/]", soft_wrap=True)
            attempts = "1 attempt" if task.attempts == 1 else f"{task.attempts} attempts"
            self._console.print(f"  failed after {attempts}: {escape(reason)}", soft_wrap=True)
        self._console.print(f"\n[dim]All attempts are logged in {escape(str(log))}[/]\n", soft_wrap=True)

    def error(self, message: str) -> None:
        """Print why the demo itself failed."""
        self._console.print(f"\n[bold red]The demo failed.[/] {escape(message)}\n", soft_wrap=True)

    def stopped(self) -> None:
        """Print that the demo was interrupted."""
        self._console.print("\nDemo stopped. All its processes have ended.\n")


class StageBars:
    """The progress bars, one per stage."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars: dict[str, TaskID] = {}

    def show(self, gallery: Gallery) -> None:
        """Update the bars."""
        for stage in gallery.stages:
            summary = stage.summary
            if stage.type not in self._bars:
                self._bars[stage.type] = self._progress.add_task(stage.type, note="")
            bar = self._bars[stage.type]
            counts = {"failed": summary.failed, "waiting for a retry": summary.retried}
            note = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
            self._progress.update(bar, total=summary.total, completed=summary.completed, note=note)


def _rows(stages: Sequence[AnyStage]) -> Iterator[tuple[str, str, str, str]]:
    for stage in stages:
        tasks = stage.summary.completed
        if stage.start_time is None or stage.end_time is None:
            yield stage.type, str(tasks), "-", "-"
            continue
        seconds = (stage.end_time - stage.start_time).total_seconds()
        yield stage.type, str(tasks), f"{seconds:.2f} s", f"{tasks / seconds:.1f}" if seconds else "-"
