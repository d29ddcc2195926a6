"""A long run of chaos, with as many kills as are wanted. Run by ``make chaos``.

A seed says what strikes; the machine decides what it meets. So the same seed does the same, and need not find the same.
"""

import argparse
import asyncio
import secrets
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.chaos.checks import Checks
from tests.chaos.journal import Event
from tests.chaos.rounds import Findings, play
from tests.chaos.site import Site
from tests.chaos.troubles import KILLS, TROUBLES, Trouble, about

JOBS = 3
"""Times five a round."""
MOST_TROUBLES = 3
"""In one round."""
SHOWN = 20
"""Findings."""


def main() -> int:
    """Run, and say how it went; 1 if anything was lost or wrong."""
    parser = argparse.ArgumentParser(description="Kill everything while work goes on, and check that nothing is lost.")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="repeats the choices of a run")
    parser.add_argument("--kills", type=int, default=100, help="how many; 100 unless said otherwise")
    arguments = parser.parse_args()
    console = Console(highlight=False)
    console.print(f"Seed {arguments.seed}: [bold]make chaos SEED={arguments.seed} KILLS={arguments.kills}[/] again")
    folder = Path(tempfile.mkdtemp(prefix="jobnik-chaos-"))
    folder.chmod(0o755)  # as root, PostgreSQL runs as another user
    with Site(folder, arguments.seed) as site:
        checks = Checks(site)
        findings = asyncio.run(run(site, checks, arguments.kills, console))
    console.print(_table(site, checks, findings))
    if not any(findings):
        shutil.rmtree(folder)
        return 0
    console.print("\n".join(str(findings).splitlines()[:SHOWN]), markup=False, soft_wrap=True)
    console.print(f"Journals, logs and data are in {folder}", soft_wrap=True)
    return 1


async def run(site: Site, checks: Checks, kills: int, console: Console) -> Findings:
    """Play rounds until so many were killed, or something is lost or wrong."""
    columns = TextColumn("{task.description:<50}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=kills)
        while (done := sum(site.struck[kill] for kill in KILLS)) < kills:
            troubles = _some(site)
            names = ", ".join(trouble.__name__.replace("_", " ") for trouble in troubles)
            progress.update(bar, completed=done, description=names)
            findings = await play(site, checks, troubles, JOBS)
            if any(findings):
                return findings
        progress.update(bar, completed=done, description="whether what ended is as it was")
        return Findings(wrong=await checks.nothing_has_changed())


def _some(site: Site) -> Sequence[Trouble]:
    """The troubles of a round: at least one kill, and every other trouble as often as any."""
    others = [trouble for trouble in TROUBLES if trouble not in KILLS]
    kills = site.random.choices(KILLS, k=site.random.randint(1, MOST_TROUBLES))
    troubles = [*kills, site.random.choice(others)]
    site.random.shuffle(troubles)
    return troubles


def _table(site: Site, checks: Checks, findings: Findings) -> Table:
    wrong = "[bold red]" if any(findings) else "[bold green]"
    title = f"{wrong}{len(findings.lost)} lost, {len(findings.wrong)} wrong"
    table = Table("what", "times", title=title, title_justify="left")
    table.columns[1].justify = "right"
    for trouble in TROUBLES:
        table.add_row(about(trouble), f"{site.struck[trouble]:,}")
    for mischief in sorted({kind for proxy in site.proxies for kind in proxy.done}):
        table.add_row(f"A request: {mischief}", f"{sum(proxy.done[mischief] for proxy in site.proxies):,}")
    table.add_section()
    for status, count in sorted(checks.statuses.items()):
        table.add_row(f"Tasks {status}", f"{count:,}")
    table.add_section()
    for outcome, count in sorted(checks.outcomes.items()):
        table.add_row(f"Attempts {outcome}", f"{count:,}")
    table.add_section()
    table.add_row("Verdicts in the workers' journals", f"{site.journal.events[Event.ANSWERED]:,}")
    table.add_row("of these LEASE_LOST", f"{site.journal.refused:,}")
    table.add_row("Reports said again, and answered the same", f"{site.journal.events[Event.REPEATED]:,}")
    table.add_row("Handlers that were cancelled", f"{site.journal.events[Event.INTERRUPTED]:,}")
    return table


if __name__ == "__main__":
    sys.exit(main())
