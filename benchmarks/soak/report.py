"""The results of a soak: a table that compares its beginning with its end, and charts.

``python -m benchmarks.soak.report FOLDER`` writes them again from the samples in a folder.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.soak import charts, samples
from benchmarks.soak.charts import Panel
from benchmarks.soak.samples import Sample

SAMPLES, TABLE, CHARTS = "samples.jsonl", "table.md", "soak.svg"
"""The files of a soak."""
WINDOW = 10.0
"""Minutes of the first and of the last window; a third of a shorter soak."""
SHOWN_TABLES = 5
"""Number of tables with a line in a chart."""


@dataclass(frozen=True)
class Row:
    """A figure of the samples."""

    title: str
    value: Callable[[Sample], float]
    digits: int = 1


ROWS = (
    Row("memory of manager 1, MB", lambda sample: sample.memory[0]),
    Row("memory of manager 2, MB", lambda sample: sample.memory[1]),
    Row("tasks ended per second", lambda sample: sample.rate, 0),
    Row("cores used by the managers", lambda sample: sum(sample.cpu), 2),
    Row("connections to PostgreSQL", lambda sample: sample.connections),
    Row("dead rows, all tables", lambda sample: sum(sample.dead.values()), 0),
    Row("size of all tables, MB", lambda sample: sum(sample.sizes.values())),
    Row("write-ahead log per task, bytes", lambda sample: sample.wal_per_task, 0),
    Row("tasks outstanding", lambda sample: sample.outstanding, 0),
    Row("claim p50, ms", lambda sample: sample.milliseconds["claim"][0], 2),
    Row("claim p99, ms", lambda sample: sample.milliseconds["claim"][1]),
    Row("settle p50, ms", lambda sample: sample.milliseconds["settle"][0], 2),
    Row("settle p99, ms", lambda sample: sample.milliseconds["settle"][1]),
    Row("liveness p99, ms", lambda sample: sample.milliseconds["liveness"][1]),
)


def write(folder: Path) -> str:
    """Write the table and the charts of the samples in a folder. Return the table as Markdown."""
    taken = samples.read(folder / SAMPLES)
    table = _table(taken)
    (folder / TABLE).write_text(table)
    (folder / CHARTS).write_text(charts.draw(_panels(taken)))
    return table


def _table(taken: Sequence[Sample]) -> str:
    length = taken[-1].minutes - taken[0].minutes
    window = min(WINDOW, length / 3)
    first = [sample for sample in taken if sample.minutes <= taken[0].minutes + window]
    last = [sample for sample in taken if sample.minutes >= taken[-1].minutes - window]
    lines = [
        f"| what | first {window:.2g} min | last {window:.2g} min | change per hour |",
        "|---|---|---|---|",
    ]
    for row in ROWS:
        means = [sum(map(row.value, window)) / len(window) for window in (first, last)]
        slope = _slope([(sample.minutes / 60, row.value(sample)) for sample in taken])
        figures = [f"{figure:,.{row.digits}f}" for figure in means]
        lines.append(f"| {row.title} | {' | '.join(figures)} | {slope:+,.{row.digits}f} |")
    for name in sorted({name for sample in taken for name in sample.events}):
        count = sum(sample.events.get(name, 0) for sample in taken)
        first_count, last_count = (sum(one.events.get(name, 0) for one in window) for window in (first, last))
        lines.append(f"| {name} (in all: {count:,}) | {first_count:,} | {last_count:,} | |")
    return "\n".join(lines) + "\n"


def _slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the slope of the line that fits the points best."""
    x_mean, y_mean = (sum(values) / len(points) for values in zip(*points, strict=True))
    spread = sum((x - x_mean) ** 2 for x, _ in points)
    return sum((x - x_mean) * (y - y_mean) for x, y in points) / spread if spread else 0.0


def _panels(taken: Sequence[Sample]) -> Sequence[Panel]:
    def line(value: Callable[[Sample], float]) -> charts.Points:
        return [(sample.minutes, value(sample)) for sample in taken]

    def by_table(values: Callable[[Sample], Mapping[str, float]]) -> dict[str, charts.Points]:
        totals = {name: sum(values(sample).get(name, 0) for sample in taken) for name in values(taken[-1])}
        largest = sorted(totals, key=lambda name: totals[name], reverse=True)[:SHOWN_TABLES]
        return {name: line(lambda sample, name=name: values(sample).get(name, 0)) for name in largest}

    def durations(kind: str) -> dict[str, charts.Points]:
        return {
            "p50": line(lambda sample: sample.milliseconds[kind][0]),
            "p99": line(lambda sample: sample.milliseconds[kind][1]),
        }

    managers = {f"manager {number + 1}": number for number in range(len(taken[0].memory))}
    return [
        Panel("Memory, MB", {name: line(lambda sample, n=n: sample.memory[n]) for name, n in managers.items()}),
        Panel("Connections to PostgreSQL", {"both managers": line(lambda sample: sample.connections)}),
        Panel("Dead rows", by_table(lambda sample: sample.dead)),
        Panel("Size of tables, MB", by_table(lambda sample: sample.sizes)),
        Panel("Write-ahead log per task, bytes", {"per task": line(lambda sample: sample.wal_per_task)}),
        Panel("Tasks outstanding", {"tasks": line(lambda sample: sample.outstanding)}),
        Panel("Claim, ms", durations("claim")),
        Panel("Report, ms", durations("settle")),
    ]


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
