"""A long chaos run with a given number of kills. Run by ``make chaos``.

The seed determines which faults are injected. Timing depends on the machine, so the same seed may give other findings.
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
from tests.chaos.cluster import Cluster
from tests.chaos.faults.catalogue import FAULTS, KILLS, describe
from tests.chaos.faults.processes import roll_back
from tests.chaos.faults.repairs import Fault
from tests.chaos.journal import Event
from tests.chaos.rounds import Findings, play_round

JOBS = 3
"""Number of sets of five jobs per round."""
MAX_KILLS, MAX_OTHERS = 3, 2
"""Maximum number of kills, and of other faults, per round."""
SHOWN = 20
"""Maximum number of findings to print."""


def main() -> int:
    """Run and print the result; return 1 if any task was lost or wrong."""
    parser = argparse.ArgumentParser(description="Kill everything while work goes on, and check that nothing is lost.")
    parser.add_argument(
        "--seed",
        type=int,
        default=secrets.randbelow(10**6),
        help="repeat the faults of an earlier run; default: random",
    )
    parser.add_argument("--kills", type=int, default=100, help="number of kills (default: 100)")
    arguments = parser.parse_args()
    console = Console(highlight=False)
    console.print(f"To repeat this run: [bold]make chaos SEED={arguments.seed} KILLS={arguments.kills}[/]")
    folder = Path(tempfile.mkdtemp(prefix="jobnik-chaos-"))
    folder.chmod(0o755)  # if this user is root, PostgreSQL runs as another user
    with Cluster(folder, arguments.seed) as cluster:
        checks = Checks(cluster)
        findings = asyncio.run(run(cluster, checks, arguments.kills, console))
    console.print(_table(cluster, checks, findings))
    if not any(findings):
        shutil.rmtree(folder)
        return 0
    console.print("\n".join(str(findings).splitlines()[:SHOWN]), markup=False, soft_wrap=True)
    console.print(f"Journals, logs and data: {folder}", soft_wrap=True)
    return 1


async def run(cluster: Cluster, checks: Checks, kills: int, console: Console) -> Findings:
    """Play rounds until `kills` processes were killed, or until something is lost or wrong."""
    columns = TextColumn("{task.description:<50}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=kills)
        while (done := sum(cluster.fault_counts[kill] for kill in KILLS)) < kills:
            faults = _some(cluster)
            names = ", ".join(fault.__name__.replace("_", " ") for fault in faults)
            progress.update(bar, completed=done, description=names)
            findings = await play_round(cluster, checks, faults, JOBS)
            if any(findings):
                return findings
        progress.update(bar, completed=done, description="checking that finished jobs did not change")
        return Findings(wrong=await checks.nothing_has_changed())


def _some(cluster: Cluster) -> Sequence[Fault]:
    """Choose the faults of a round: one to three kills and one or two other faults."""
    others = cluster.random.sample(
        [fault for fault in FAULTS if fault not in KILLS], k=cluster.random.randint(1, MAX_OTHERS)
    )
    if roll_back in others:
        others = [roll_back]  # the previous release does not withstand every other fault
    faults = [*cluster.random.choices(KILLS, k=cluster.random.randint(1, MAX_KILLS)), *others]
    cluster.random.shuffle(faults)
    return faults


def _table(cluster: Cluster, checks: Checks, findings: Findings) -> Table:
    wrong = "[bold red]" if any(findings) else "[bold green]"
    title = f"{wrong}{len(findings.lost)} lost, {len(findings.wrong)} wrong"
    table = Table("event", "count", title=title, title_justify="left")
    table.columns[1].justify = "right"
    for fault in FAULTS:
        table.add_row(describe(fault), f"{cluster.fault_counts[fault]:,}")
    for kind in sorted({key for proxy in cluster.proxies for key in proxy.fault_counts}):
        table.add_row(f"Request fault: {kind}", f"{sum(proxy.fault_counts[kind] for proxy in cluster.proxies):,}")
    table.add_section()
    for status, count in sorted(checks.statuses.items()):
        table.add_row(f"Tasks {status}", f"{count:,}")
    table.add_section()
    for outcome, count in sorted(checks.outcomes.items()):
        table.add_row(f"Attempts {outcome}", f"{count:,}")
    table.add_section()
    table.add_row("Reports answered", f"{cluster.journal.events[Event.VERDICT]:,}")
    table.add_row("Reports answered with LEASE_LOST", f"{cluster.journal.refused:,}")
    table.add_row("Repeated reports, answered identically", f"{cluster.journal.events[Event.REPEATED_VERDICT]:,}")
    table.add_row("Handlers cancelled", f"{cluster.journal.events[Event.HANDLER_CANCELLED]:,}")
    return table


if __name__ == "__main__":
    sys.exit(main())
