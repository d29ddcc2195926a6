"""What the person who started the demo sees."""

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from jobnik_sdk import Empty, Stage
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table

from tools.demo.folders import Folders
from tools.demo.gallery import FailedTask, Gallery


class Screen:
    """Steps as they are taken, a progress bar for each stage, and how it ended."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._start = time.monotonic()

    def headline(self, text: str) -> None:
        """Say what is about to happen."""
        self._console.print(f"\n[bold]{escape(text)}[/]\n")

    @contextmanager
    def step(self, doing: str, done: str) -> Generator[None]:
        """Say that something is being done, and then that it is, and how long it took."""
        start = time.monotonic()
        with self._console.status(escape(doing)):
            yield
        self._console.print(f"[green]✓[/] {escape(done)} [dim]{time.monotonic() - start:.1f} s[/]")

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
        """Show what was done how fast, and where it lies."""
        table = Table(title="Done", title_style="bold green", title_justify="left")
        table.add_column("Stage")
        for name in ("Tasks", "Time", "Tasks/s"):
            table.add_column(name, justify="right")
        for row in _rows(gallery.stages):
            table.add_row(*row)
        self._console.print(Padding(table, (1, 0)))
        self._console.print(f"Contact sheet  {escape(str(folders.contact_sheet))}", soft_wrap=True)
        self._console.print(f"Thumbnails     {escape(str(folders.thumbnails))}", soft_wrap=True)
        self._console.print(f"The worker     {escape(str(folders.worker))} [dim]is yours to look at[/]", soft_wrap=True)
        self._console.print(f"[dim]In all {time.monotonic() - self._start:.1f} s[/]\n")

    def failed_job(self, failures: Sequence[tuple[FailedTask, str]], log: Path) -> None:
        """Show which files made the job fail, and why."""
        self._console.print("\n[bold red]The job failed.[/]")
        for task, reason in failures:
            self._console.print(f"\n[red]✗[/] [bold]{escape(str(task.file))}[/]", soft_wrap=True)
            self._console.print(f"  tried {task.attempts} times: {escape(reason)}", soft_wrap=True)
        self._console.print(f"\n[dim]Each attempt is in {escape(str(log))}[/]\n", soft_wrap=True)

    def error(self, message: str) -> None:
        """Show why the demo itself could not go on."""
        self._console.print(f"\n[bold red]The demo could not go on.[/] {escape(message)}\n", soft_wrap=True)

    def stopped(self) -> None:
        """Say that everything was stopped because somebody asked for it."""
        self._console.print("\nStopped; nothing is left running.\n")


class StageBars:
    """The progress bars, one a stage."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars: dict[str, TaskID] = {}

    def show(self, gallery: Gallery) -> None:
        """Move the bars to where the stages are."""
        for stage in gallery.stages:
            summary = stage.summary
            if stage.type not in self._bars:
                self._bars[stage.type] = self._progress.add_task(stage.type, note="")
            bar = self._bars[stage.type]
            troubles = {"failed": summary.failed, "to be tried again": summary.retried}
            note = ", ".join(f"{count} {trouble}" for trouble, count in troubles.items() if count)
            self._progress.update(bar, total=summary.total, completed=summary.completed, note=note)


def _rows(stages: Sequence[Stage[Empty, Empty]]) -> Iterator[tuple[str, str, str, str]]:
    for stage in stages:
        tasks = stage.summary.completed
        if stage.start_time is None or stage.end_time is None:
            yield stage.type, str(tasks), "-", "-"
            continue
        seconds = (stage.end_time - stage.start_time).total_seconds()
        yield stage.type, str(tasks), f"{seconds:.2f} s", f"{tasks / seconds:.1f}" if seconds else "-"
